"""An open-loop load generator: requests are sent when they are due, whatever the answers do.

    python -m loadtests load --profile mixed --rate 2 --duration 60 [--url http://127.0.0.1:8000]

Arrival times are drawn in advance from a seeded process. Latencies count from the
time at which a request was due, so that a stalled service cannot hide its stall by
holding back the requests that would have met it (coordinated omission).
"""
