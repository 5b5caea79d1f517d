"""Downloads, checks and unpacks files."""
