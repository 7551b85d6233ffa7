"""Operations on a release on Kubernetes, from outside the cluster.

Only `kube` uses the Kubernetes client. It returns objects as `JsonView`; the other modules
reason about these without a network.
"""
