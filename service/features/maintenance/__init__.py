"""Removes what has expired: deleted rows, ended jobs, generated files."""
