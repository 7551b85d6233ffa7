"""The capacity simulator held against a service that really runs."""
