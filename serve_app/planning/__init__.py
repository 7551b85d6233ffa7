"""Capacity planning: the service simulated with measured costs in place of the models.

Admission, fair queues, batch budgets, grouping and scaling are the service's own code on a
simulated clock. Batch formation, fan-out and routing are models of it; docs/planning.md
lists which is which.
"""
