"""TFRecord files: reading, checking and verifying them."""
