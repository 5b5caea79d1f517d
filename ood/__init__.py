"""Out-of-distribution (OOD) detection: photos of none of the classes."""
