"""The stages put together, in plain Python: what the Serve deployments, the batch
job and the command line all run."""
