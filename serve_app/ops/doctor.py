"""Everything that `paraserve cluster doctor` looks at."""

from __future__ import annotations

from collections.abc import Iterator

from serve_app.core.errors import ClusterError
from serve_app.ops import cluster_checks
from serve_app.ops.kube import Kube
from serve_app.ops.serve_config import read_config
from serve_app.ops.service import find_service, read_state
from serve_app.ops.spec_checks import Finding, specification_findings


def examine(kube: Kube, name: str | None, with_hub: bool = True) -> Iterator[Finding]:
    """Yields what is wrong with a RayService, and what could not be seen.

    Args:
        kube: where.
        name: of the RayService; None for the only one.
        with_hub: whether the hubs of the models are tried from here.

    Raises:
        ClusterRefused: the RayService may not be read, or the API server does not answer.
        ClusterError: there is no RayService, or no CRD of it.
    """
    service = find_service(kube, name)
    state = read_state(service)
    yield from cluster_checks.state_findings(state)
    yield from cluster_checks.version_findings(kube, service, state)
    yield from cluster_checks.secret_findings(kube, service)
    yield from cluster_checks.claim_findings(kube, service)
    yield from cluster_checks.node_findings(kube, service)
    yield from cluster_checks.running_findings(kube, service, state)
    try:
        config = read_config(service)
    except ClusterError as error:
        yield Finding(str(error), "correct the values and run helm upgrade")
        return
    yield from specification_findings(service, config)
    if with_hub:
        yield from cluster_checks.hub_findings(config)


def exit_code(findings: list[Finding]) -> int:
    """Returns 0 if all is well, 1 if something is wrong, 2 if that could not be seen."""
    if any(finding.is_certain for finding in findings):
        return 1
    return 2 if findings else 0
