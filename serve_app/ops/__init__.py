"""The operator's tools: one RayService on Kubernetes, seen and changed from outside.

The only part that knows the Kubernetes client, and it knows it in `kube` alone. What is
read there comes as `JsonView`; the other modules reason about trees without a network.
"""
