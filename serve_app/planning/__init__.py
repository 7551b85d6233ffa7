"""Capacity planning: the service's own decisions on a simulated clock.

Admission, fair queues, batch budgets and scaling are the classes that the service
runs; the models are replaced by their measured costs.
"""
