"""Upload, download, delete, signed links."""
