"""What programs and packages share."""
