"""Report formats: each renders one `Report` to one file."""
