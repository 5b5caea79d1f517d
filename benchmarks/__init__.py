"""Measurements, which the scripts in this folder run."""

# Flags of a program: how forward passes were computed before OpenVINO did.
OLD_RUNTIME = ('--runtime=tensorflow', '--precision=float32')
