"""The load harness: Locust drives a target, a gate judges it by its objectives, a report shows why."""
