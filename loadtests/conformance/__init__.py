"""Requests made up from the OpenAPI document, and answers compared with it."""
