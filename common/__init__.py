"""Code shared by programs and packages."""
