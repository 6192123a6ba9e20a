"""Live streams of events: each client sees its own user's and those of things it may read."""
