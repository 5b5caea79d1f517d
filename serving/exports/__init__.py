"""Exports of a trained classifier to other formats."""
