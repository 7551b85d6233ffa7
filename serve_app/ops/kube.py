"""The Kubernetes API: connection, requests and readable error messages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from serve_app.core.errors import ClusterRefused, ConfigurationError
from serve_app.ops.json_view import JsonView

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, Configuration
    from kubernetes.dynamic import DynamicClient, Resource

FIELD_MANAGER = "paraserve-scale"
_JSON_PATCH = "application/json-patch+json"
_PAGE_SIZE = 500
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_CONFLICT = 409
_GONE = 410
_Views: TypeAlias = list[JsonView]
_FORBIDDEN = re.compile(
    r'(?:"(?P<name>[^"]+)" is )?forbidden: User "(?P<user>[^"]+)" cannot (?P<verb>\w+) '
    r'resource "(?P<resource>[^"]+)"'
)


@dataclass(frozen=True, slots=True)
class KubeContext:
    """A cluster and a namespace in it.

    Attributes:
        namespace: None for that of the context, or of the pod.
        kubeconfig: None for `$KUBECONFIG` or `~/.kube/config`.
        context: None for the current one.
        in_cluster: use the service account of the pod that this runs in.
        timeout_s: of one request.
    """

    namespace: str | None = None
    kubeconfig: Path | None = None
    context: str | None = None
    in_cluster: bool = False
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object.

    Attributes:
        name: as in manifests.
        plural: as in paths.
        group: API group; empty for the core one.
        is_namespaced: whether its objects belong to a namespace.
        version: of the API group.
    """

    name: str
    plural: str
    group: str = ""
    is_namespaced: bool = True
    version: str = "v1"


RAY_GROUP = "ray.io"
RAY_SERVICE = Kind("RayService", "rayservices", RAY_GROUP)
RAY_CLUSTER = Kind("RayCluster", "rayclusters", RAY_GROUP)
RAY_CRON_JOB = Kind("RayCronJob", "raycronjobs", RAY_GROUP)
POD = Kind("Pod", "pods")
SERVICE = Kind("Service", "services")
SECRET = Kind("Secret", "secrets")
CLAIM = Kind("PersistentVolumeClaim", "persistentvolumeclaims")
NODE = Kind("Node", "nodes", is_namespaced=False)
DEPLOYMENT = Kind("Deployment", "deployments", "apps")
DISRUPTION_BUDGET = Kind("PodDisruptionBudget", "poddisruptionbudgets", "policy")
OLD_DISRUPTION_BUDGET = replace(DISRUPTION_BUDGET, version="v1beta1")
"""Before Kubernetes 1.21."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a JSON patch (RFC 6902)."""

    op: str
    path: str
    value: object

    def as_json(self) -> dict[str, object]:
        return {"op": self.op, "path": self.path, "value": self.value}


class Kube:
    """A namespace of a cluster, through the dynamic client.

    Args:
        api_client: of the official client, configured.
        namespace: that is worked in.
        timeout_s: of one request.
    """

    def __init__(self, api_client: ApiClient, namespace: str, timeout_s: float = 10.0) -> None:
        from kubernetes.dynamic import DynamicClient

        self._client = DynamicClient(api_client, discoverer=_NoDiscovery)  # type: ignore[no-untyped-call]  # theirs
        self._timeout_s = timeout_s
        self.namespace = namespace

    def get(self, kind: Kind, name: str) -> JsonView:
        """Returns an object.

        Raises:
            ClusterRefused: the object does not exist, a right is missing, or the server does not
                answer.
        """
        return _parsed(self._call("get", self._path(kind, name)))

    def list(
        self, kind: Kind, *, label_selector: str | None = None, everywhere: bool = False
    ) -> Sequence[JsonView]:
        """Returns the objects of a kind, page by page.

        Args:
            kind: of the objects.
            label_selector: restricts them.
            everywhere: in all namespaces.

        Raises:
            ClusterRefused: as `get`.
        """
        path = self._path(kind, everywhere=everywhere)
        try:
            return self._pages(path, label_selector, _PAGE_SIZE)
        except ClusterRefused as error:
            if error.status != _GONE:
                raise
        # The server forgot the list between two pages.
        return self._pages(path, label_selector, None)

    def _pages(
        self, path: str, label_selector: str | None, limit: int | None
    ) -> Sequence[JsonView]:
        found: _Views = []
        following: str | None = None
        while True:
            page = _parsed(
                self._call(
                    "get", path, label_selector=label_selector, limit=limit, _continue=following
                )
            )
            found.extend(page.at("items").each())
            following = page.at("metadata", "continue").text() or None
            if following is None:
                return found

    def get_text(
        self,
        kind: Kind,
        name: str,
        subpath: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Returns what a subresource answers, such as `log`, or a path behind `proxy`.

        Args:
            kind: of the object.
            name: of the object; for a proxy `http:NAME:PORT`.
            subpath: after the object's path.
            query: parameters.
            headers: passed on by a proxy.

        Raises:
            ClusterRefused: as `get`.
        """
        return self._call(
            "get",
            f"{self._path(kind, name)}/{subpath.lstrip('/')}",
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json, */*", **(headers or {})},
        )

    def patch(self, kind: Kind, name: str, operations: Sequence[Operation]) -> JsonView:
        """Applies a JSON patch as the field manager `FIELD_MANAGER`.

        Raises:
            ClusterRefused: as `get`; its status is 409 if the object is no longer the one that the
                patch names by its resourceVersion.
        """
        answer = self._call(
            "patch",
            self._path(kind, name),
            body=[operation.as_json() for operation in operations],
            content_type=_JSON_PATCH,
            field_manager=FIELD_MANAGER,
        )
        return _parsed(answer)

    def delete(self, kind: Kind, name: str, uid: str) -> None:
        """Deletes an object if it still has that uid.

        Raises:
            ClusterRefused: as `patch`.
        """
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        self._call("delete", self._path(kind, name), body=body)

    def has_ray(self) -> bool:
        """Returns whether the cluster has KubeRay's definitions.

        Raises:
            ClusterRefused: the API server refuses, or does not answer.
        """
        try:
            self._call("get", f"/apis/{RAY_GROUP}/v1")
        except ClusterRefused as error:
            if error.status != 404:
                raise
            return False
        return True

    def _path(self, kind: Kind, name: str | None = None, *, everywhere: bool = False) -> str:
        path: str = self._resource(kind).path(  # type: ignore[no-untyped-call]  # theirs
            # A name with a slash would be another path.
            name=None if name is None else quote(name, safe=":"),
            namespace=quote(self.namespace) if kind.is_namespaced and not everywhere else None,
        )
        return path

    def _resource(self, kind: Kind) -> Resource:
        from kubernetes.dynamic import Resource

        return Resource(  # type: ignore[no-untyped-call]  # theirs
            prefix="apis" if kind.group else "api",
            group=kind.group,
            api_version=kind.version,
            kind=kind.name,
            name=kind.plural,
            namespaced=kind.is_namespaced,
            client=self._client,
        )

    def _call(self, method: str, path: str, **parameters: Any) -> str:
        """Returns the body of an answer.

        Raises:
            ClusterRefused: the API server refuses, or does not answer.
        """
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            answer = self._client.request(
                method, path, serialize=False, _request_timeout=self._timeout_s, **parameters
            )
        except ApiException as error:
            if not error.status:
                raise ClusterRefused(self._unreachable(error)) from None
            message = explain(error.status, _decoded(error.body), self.namespace)
            raise ClusterRefused(message, error.status) from None
        except HTTPError as error:
            raise ClusterRefused(self._unreachable(error)) from None
        return _decoded(answer.data)

    def _unreachable(self, error: Exception) -> str:
        host = self._client.configuration.host
        return f"no answer from {host} ({_cause(error)}): check the kubeconfig, context and network"


class _NoDiscovery:
    """Spares the dynamic client its discovery: the kinds in use are known.

    Discovery would need more rights, has no timeout, and caches in a file that every user of the
    machine can write.
    """

    def __init__(self, client: DynamicClient, cache_file: str | None) -> None:
        pass


def explain(status: int, content: str, namespace: str) -> str:
    """Returns one sentence about a refusal; it names the missing right if that is the reason.

    Args:
        status: HTTP status.
        content: body of the answer, usually a Status object.
        namespace: in which the right would be granted.
    """
    try:
        answer = _parsed(content)
    except ClusterRefused:
        answer = JsonView()
    message = answer.at("message").text(content.strip()[:200] or f"status {status}")
    if status == 401:
        return "the API server does not accept the credentials: log in again, or choose a context"
    if status == 403 and answer.at("kind").text() == "Status":
        return (
            f"{_missing_right(message)} in {namespace}; "
            "rbac.operators of the chart grants what `paraserve cluster` needs"
        )
    if status == _CONFLICT:
        return "the object was changed by someone else at the same time"
    if status == 404:
        return message
    return f"the API server answered {status}: {message}"


def connect(context: KubeContext) -> Kube:
    """Returns the namespace that the context selects.

    Raises:
        ConfigurationError: the client is not installed, or there is no usable kubeconfig.
    """
    try:
        from kubernetes import client
        from kubernetes.config.config_exception import ConfigException
    except ImportError:
        raise ConfigurationError(
            "paraserve cluster needs the Kubernetes client: pip install 'paraserve[ops]'"
        ) from None
    settings = client.Configuration()
    settings.retries = 1
    try:
        found = _load_own(settings) if context.in_cluster else _load_file(settings, context)
    except (ConfigException, OSError) as error:
        raise ConfigurationError(
            f"no usable access to a cluster ({error}): give --kubeconfig and --context, "
            "or --in-cluster inside of a pod"
        ) from None
    return Kube(client.ApiClient(settings), context.namespace or found, context.timeout_s)


def _load_own(settings: Configuration) -> str:
    """Loads the service account of the pod; returns the pod's namespace."""
    from kubernetes.config.incluster_config import load_incluster_config

    load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]  # theirs
    return _OWN_NAMESPACE.read_text(encoding="utf-8").strip()


def _load_file(settings: Configuration, context: KubeContext) -> str:
    """Loads a kubeconfig; returns the namespace of its context."""
    from kubernetes.config import kube_config

    file = str(context.kubeconfig) if context.kubeconfig else None
    # The client leaves both untyped.
    kube_config.load_kube_config(file, context.context, settings)  # type: ignore[no-untyped-call]
    contexts, active = kube_config.list_kube_config_contexts(file)  # type: ignore[no-untyped-call]
    named = [entry for entry in contexts if entry["name"] == context.context]
    return JsonView(named[0] if named else active).at("context", "namespace").text("default")


def _missing_right(message: str) -> str:
    """Returns who lacks which right, from the server's own sentence."""
    found = _FORBIDDEN.search(message)
    if found is None:
        return f"a right is missing ({message})"
    name = f" {found['name']}" if found["name"] else ""
    return f"{found['user']} may not {found['verb']} {found['resource']}{name}"


def _cause(error: Exception) -> str:
    """Returns the innermost reason, shortened."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, Exception):
        return _cause(reason)
    return (reason or str(error)).split(": ", 1)[-1].replace("\n", " ")[:120]


def _decoded(content: bytes | str | None) -> str:
    return content.decode(errors="replace") if isinstance(content, bytes) else content or ""


def _parsed(text: str) -> JsonView:
    try:
        return JsonView(json.loads(text))
    except json.JSONDecodeError:
        raise ClusterRefused(
            "the answer is not JSON: is this address a Kubernetes API server?"
        ) from None
