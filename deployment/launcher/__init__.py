"""Launcher of training on hosts without an orchestrator."""
