"""Conversion of photos and public data sets to TFRecord files."""
