"""Programs beside the five of the root; run with `python -m tools.NAME`."""
