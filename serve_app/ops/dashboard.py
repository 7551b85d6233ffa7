"""Ray's REST API, through the Kubernetes API's proxy to the head's Service."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping

from serve_app.core.errors import ClusterError, ClusterRefused
from serve_app.ops.json_view import JsonView
from serve_app.ops.kube import POD, SECRET, SERVICE, Kube
from serve_app.ops.service import ClusterState

TOKEN_VARIABLE = "RAY_AUTH_TOKEN"  # noqa: S105  # a name, and Ray's own
_TOKEN_KEY = "auth_token"  # noqa: S105  # a name, and KubeRay's own
_PORT = 8265
_METRICS_PORT = 8080


class Dashboard:
    """The head of a RayCluster.

    Args:
        kube: namespace of the head.
        service: name of the head's Service.
        token: Ray's; None if Ray requires none or it is unknown.
        secret: name of the Secret that holds it, for error messages.
    """

    def __init__(self, kube: Kube, service: str, token: str | None, secret: str) -> None:
        self._kube = kube
        self._name = f"http:{service}:{_PORT}"
        # The API server consumes `Authorization` and passes this header on.
        self._headers = {"X-Ray-Authorization": f"Bearer {token}"} if token else {}
        self._secret = secret

    def applications(self) -> JsonView:
        """Returns Serve's details of its applications, by name.

        Raises:
            ClusterRefused: it cannot be reached, or a right or Ray's token is missing.
        """
        return self._json("/api/serve/applications/").at("applications")

    def live_addresses(self) -> set[str]:
        """Returns the IP addresses of Ray's live nodes.

        Raises:
            ClusterRefused: as `applications`.
        """
        nodes = self._json("/api/v0/nodes").at("data", "result", "result")
        return {
            node.at("node_ip").text() for node in nodes.each() if node.at("state").text() == "ALIVE"
        }

    def ray_version(self) -> str:
        """Returns the version of Ray in the running cluster.

        Raises:
            ClusterRefused: as `applications`.
        """
        return self._json("/api/version").at("ray_version").text()

    def log_tail(self, node_id: str, file: str, num_lines: int) -> list[str]:
        """Returns the last lines of a log file of a node.

        Args:
            node_id: Ray's.
            file: its path in Ray's log directory.
            num_lines: maximum.

        Raises:
            ClusterRefused: as `applications`.
        """
        query = {
            "node_id": node_id,
            "filename": file.lstrip("/"),
            "lines": str(num_lines),
            "filter_ansi_code": "true",
        }
        return self._text("/api/v0/logs/file", query).splitlines()

    def _json(self, path: str) -> JsonView:
        try:
            return JsonView(json.loads(self._text(path, None)))
        except json.JSONDecodeError:
            raise ClusterRefused("Ray's dashboard does not answer with JSON") from None

    def _text(self, path: str, query: Mapping[str, str] | None) -> str:
        try:
            return self._kube.get_text(SERVICE, self._name, f"proxy{path}", query, self._headers)
        except ClusterRefused as error:
            if error.status == 401:
                raise ClusterRefused(
                    f"Ray requires its token: set {TOKEN_VARIABLE}, or get the right to read "
                    f"the Secret {self._secret}",
                    error.status,
                ) from None
            raise


def open_dashboard(kube: Kube, service: JsonView, cluster: ClusterState | None) -> Dashboard:
    """Returns the dashboard of a cluster of the RayService.

    Ray's token comes from the environment, or from its Secret if that may be read.

    Raises:
        ClusterError: the head does not exist yet.
    """
    if cluster is None or not cluster.head_service:
        raise ClusterError("the head has not started yet")
    options = service.at("spec", "rayClusterConfig", "authOptions")
    secret = options.at("secretName").text(cluster.name)
    token = os.environ.get(TOKEN_VARIABLE) or None
    if token is None and options.at("mode").text() == "token":
        token = _read_token(kube, secret)
    return Dashboard(kube, cluster.head_service, token, secret)


def pod_metrics(kube: Kube, pod: str) -> str:
    """Returns the metrics of a Ray pod, in Prometheus' format.

    Raises:
        ClusterRefused: the pod cannot be reached, or a right is missing.
    """
    return kube.get_text(POD, f"http:{pod}:{_METRICS_PORT}", "proxy/metrics")


def _read_token(kube: Kube, secret: str) -> str | None:
    try:
        encoded = kube.get(SECRET, secret).at("data", _TOKEN_KEY).text()
        return base64.b64decode(encoded).decode() or None
    except (ClusterRefused, binascii.Error, UnicodeDecodeError):
        return None
