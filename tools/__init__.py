"""Further programs; run with `python -m tools.NAME`."""
