"""A service on several nodes of this machine, under load, while its processes are killed."""
