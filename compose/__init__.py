"""The stack: one table of components, and what starts, watches and stops them."""
