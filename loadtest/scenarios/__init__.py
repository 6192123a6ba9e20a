"""Journeys: what users of a target do."""
