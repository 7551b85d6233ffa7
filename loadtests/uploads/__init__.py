"""Thousands of broken uploads against a running service; see `__main__`."""
