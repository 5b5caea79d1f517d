"""Reading of photo files of any format: checks, orientation, colours."""
