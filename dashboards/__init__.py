"""Dashboards as code: one module each, a shared kit, and the JSON that Grafana provisions from files."""
