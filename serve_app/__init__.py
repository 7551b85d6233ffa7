"""Paraserve: long Mandarin speech to punctuated, timed text on Ray Serve."""

__version__ = "0.2.0"
