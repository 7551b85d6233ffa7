"""Which request runs next, in which batch, and on how many replicas."""
