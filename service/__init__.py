"""The API, the workers and the schedulers."""

__version__ = "0.1.0"
