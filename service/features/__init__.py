"""What the service does, one folder per domain."""
