"""Thousands of broken uploads against a running service."""
