"""Ray's own REST API, reached through the Kubernetes API's proxy to the head's Service."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from urllib.parse import quote

from serve_app.core.errors import ClusterError, ClusterRefused
from serve_app.ops.json_view import JsonView
from serve_app.ops.kube import Kube
from serve_app.ops.service import ClusterState

TOKEN_VARIABLE = "RAY_AUTH_TOKEN"  # noqa: S105  # a name, and Ray's own
_TOKEN_KEY = "auth_token"  # noqa: S105  # a name, and KubeRay's own
_PORT = 8265
_METRICS_PORT = 8080


class Dashboard:
    """The head of a RayCluster.

    Args:
        kube: by which it is reached.
        service: name of the head's Service.
        token: Ray's; None where it asks for none or it is not known.
        secret: name of the Secret that holds it, for what is told.
    """

    def __init__(self, kube: Kube, service: str, token: str | None, secret: str) -> None:
        self._kube = kube
        self._base = f"{kube.path('services')}/http:{quote(service)}:{_PORT}/proxy"
        # The API server keeps `Authorization` for itself and passes this one on.
        self._headers = {"X-Ray-Authorization": f"Bearer {token}"} if token else {}
        self._secret = secret

    def applications(self) -> JsonView:
        """Returns what Serve says of its applications, by name.

        Raises:
            ClusterRefused: it cannot be reached, or a right or Ray's token is missing.
        """
        return self._json("/api/serve/applications/").at("applications")

    def ray_version(self) -> str:
        """Returns the version of the Ray that runs.

        Raises:
            ClusterRefused: as `applications`.
        """
        return self._json("/api/version").at("ray_version").text()

    def log_tail(self, node_id: str, file: str, num_lines: int) -> list[str]:
        """Returns the last lines of a log file of a node.

        Args:
            node_id: Ray's.
            file: its path below Ray's directory of logs.
            num_lines: at most.

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
            raise ClusterRefused("Ray's dashboard answers something else than JSON") from None

    def _text(self, path: str, query: Mapping[str, str] | None) -> str:
        try:
            return self._kube.get_text(self._base + path, query, self._headers)
        except ClusterRefused as error:
            if error.status == 401:
                raise ClusterRefused(
                    f"Ray asks for its token: set {TOKEN_VARIABLE}, or have the right to get "
                    f"the Secret {self._secret}",
                    error.status,
                ) from None
            raise


def open_dashboard(kube: Kube, service: JsonView, cluster: ClusterState | None) -> Dashboard:
    """Returns the dashboard of a cluster of the RayService.

    Ray's token comes from the environment, or from its Secret where that may be read.

    Raises:
        ClusterError: there is no head yet.
    """
    if cluster is None or not cluster.head_service:
        raise ClusterError("the head is not up yet")
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
    path = f"{kube.path('pods')}/http:{quote(pod)}:{_METRICS_PORT}/proxy/metrics"
    return kube.get_text(path, None, {})


def _read_token(kube: Kube, secret: str) -> str | None:
    try:
        encoded = kube.get(kube.path("secrets", secret)).at("data", _TOKEN_KEY).text()
        return base64.b64decode(encoded).decode() or None
    except (ClusterRefused, binascii.Error, UnicodeDecodeError):
        return None
