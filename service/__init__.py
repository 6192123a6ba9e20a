"""The API and the workers."""

__version__ = "0.1.0"
