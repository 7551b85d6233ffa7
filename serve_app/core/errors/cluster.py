"""What the operator's tools run into on a Kubernetes cluster."""

from __future__ import annotations

from serve_app.core.errors.root import ParaserveError


class ClusterError(ParaserveError):
    """The cluster is not as the command needs it; the operator must act as it says."""

    code = "cluster_error"


class ClusterRefused(ClusterError):
    """The API server refused a request or did not answer.

    Args:
        detail: a sentence.
        status: HTTP status; 0 without an answer.
    """

    code = "cluster_refused"

    def __init__(self, detail: str, status: int = 0) -> None:
        super().__init__(detail, status)

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def status(self) -> int:
        return int(str(self.args[1]))
