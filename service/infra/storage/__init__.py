"""Files: one interface, local disk and S3."""
