"""How the process and what it depends on are doing."""
