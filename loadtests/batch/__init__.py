"""Batch jobs that are killed, held against clean ones, and run beside the service.

python -m loadtests batch resume        killed three times, nothing lost, nothing twice
python -m loadtests batch throughput    against the same engines in a plain loop
python -m loadtests batch beside        what requests notice of a job on spare capacity
"""
