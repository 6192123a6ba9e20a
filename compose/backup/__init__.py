"""Backup and restore of what a stack keeps: PostgreSQL, and Grafana's state where Grafana is part of it."""
