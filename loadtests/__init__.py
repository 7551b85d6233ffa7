"""Measurements of the running service; every number in docs/performance.md comes from here."""
