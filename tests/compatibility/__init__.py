"""Clients that others have written, against the API over a real socket."""
