"""What the features stand on, each behind a small interface."""
