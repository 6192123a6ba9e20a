"""Who may do how much in how much time."""
