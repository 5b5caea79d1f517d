"""Small programs around the chain."""
