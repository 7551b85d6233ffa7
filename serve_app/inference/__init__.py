"""Loads models and runs them in plain Python, for the Serve deployments, the batch job and
the command line."""
