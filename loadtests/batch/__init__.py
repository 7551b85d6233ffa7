"""Batch jobs that are killed, held against clean ones, and run beside the service."""
