"""Payments that are created by a request and settled by a job."""
