"""Evaluation of checkpoints: metrics, calibration, OOD detection, reports."""
