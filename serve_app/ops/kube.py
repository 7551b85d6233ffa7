"""The Kubernetes API: where it is, one way to ask it, and plain words for its refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from serve_app.core.errors import ClusterRefused, ConfigurationError
from serve_app.ops.json_view import JsonView

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, Configuration
    from kubernetes.client.rest import RESTResponse

FIELD_MANAGER = "paraserve-scale"
_JSON_PATCH = "application/json-patch+json"
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_CONFLICT = 409
_FORBIDDEN = re.compile(
    r'(?:"(?P<name>[^"]+)" is )?forbidden: User "(?P<user>[^"]+)" cannot (?P<verb>\w+) '
    r'resource "(?P<resource>[^"]+)"'
)


@dataclass(frozen=True, slots=True)
class KubeContext:
    """Which cluster, and where in it.

    Attributes:
        namespace: None for that of the context, or of the pod.
        kubeconfig: None for `$KUBECONFIG` or `~/.kube/config`.
        context: None for the current one.
        in_cluster: use the account of the pod that this runs in.
        timeout_s: of one request.
    """

    namespace: str | None = None
    kubeconfig: Path | None = None
    context: str | None = None
    in_cluster: bool = False
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a JSON patch (RFC 6902)."""

    op: str
    path: str
    value: object

    def as_json(self) -> dict[str, object]:
        return {"op": self.op, "path": self.path, "value": self.value}


class Kube:
    """A namespace of a cluster.

    Args:
        api_client: of the official client, configured.
        namespace: that is worked in.
        timeout_s: of one request.
    """

    def __init__(self, api_client: ApiClient, namespace: str, timeout_s: float = 10.0) -> None:
        self._client = api_client
        self._timeout_s = timeout_s
        self.namespace = namespace

    def get(self, path: str, query: Mapping[str, str] | None = None) -> JsonView:
        """Returns an object or a list, by its path after the server's address.

        Raises:
            ClusterRefused: there is none, the right is missing, or the server does not answer.
        """
        return _tree(self._text("GET", path, query))

    def get_text(
        self, path: str, query: Mapping[str, str] | None, headers: Mapping[str, str]
    ) -> str:
        """Returns what a proxied path answers, headers passed on.

        Raises:
            ClusterRefused: as `get`.
        """
        return self._text("GET", path, query, headers=headers)

    def list(self, resource: str, group: str = "api/v1", **query: str) -> Sequence[JsonView]:
        """Returns the objects of a resource of the namespace.

        Raises:
            ClusterRefused: as `get`.
        """
        return list(self.get(self.path(resource, group=group), query).at("items").each())

    def patch(self, path: str, operations: Sequence[Operation]) -> JsonView:
        """Applies a JSON patch under a field manager of ours.

        Raises:
            ClusterRefused: as `get`; its status is 409 if the object is no longer the one that the
                patch names by its resourceVersion.
        """
        body = [operation.as_json() for operation in operations]
        query = {"fieldManager": FIELD_MANAGER}
        return _tree(self._text("PATCH", path, query, body, {"Content-Type": _JSON_PATCH}))

    def delete(self, path: str, uid: str) -> None:
        """Deletes an object if it still is the one with that uid.

        Raises:
            ClusterRefused: as `patch`.
        """
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        self._text("DELETE", path, None, body, {"Content-Type": "application/json"})

    def path(self, resource: str, name: str = "", *, group: str = "api/v1") -> str:
        """Returns the path of a resource of the namespace, or of one object."""
        base = f"/{group}/namespaces/{quote(self.namespace)}/{resource}"
        return f"{base}/{quote(name)}" if name else base

    def _text(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        answer = self._send(method, path, query, body, headers or {})
        return _content(answer)

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: object,
        headers: Mapping[str, str],
    ) -> RESTResponse:
        from urllib3.exceptions import HTTPError

        signed = {"Accept": "application/json, */*", **self._client.default_headers, **headers}
        self._client.update_params_for_auth(signed, [], ["BearerToken"], path, method, body)
        url = f"{self._client.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            answer = self._client.call_api(
                method, url, signed, body, _request_timeout=self._timeout_s
            )
        except HTTPError as error:
            raise ClusterRefused(self._unreachable(error)) from None
        if answer.status >= 400:
            raise ClusterRefused(
                explain(answer.status, _content(answer), self.namespace), answer.status
            )
        return answer

    def _unreachable(self, error: Exception) -> str:
        host = self._client.configuration.host
        return f"no answer from {host} ({_cause(error)}): check the kubeconfig, context and network"


def explain(status: int, content: str, namespace: str) -> str:
    """Returns one sentence on a refusal, with the right that is missing if it is that.

    Args:
        status: HTTP status.
        content: body of the answer, commonly a Status object.
        namespace: in which the right would be granted.
    """
    try:
        answer = _tree(content)
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
        return "somebody else has changed the object at the same time"
    if status == 404:
        return message
    return f"the API server answered {status}: {message}"


def connect(context: KubeContext) -> Kube:
    """Returns the namespace of the place.

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
    """Loads the access of the pod's account; returns the pod's namespace."""
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
    """Names who may not do what, from the server's own sentence."""
    found = _FORBIDDEN.search(message)
    if found is None:
        return f"a right is missing ({message})"
    name = f" {found['name']}" if found["name"] else ""
    return f"{found['user']} may not {found['verb']} {found['resource']}{name}"


def _cause(error: Exception) -> str:
    """Returns the innermost reason, in short."""
    reason = getattr(error, "reason", None)
    return _cause(reason) if isinstance(reason, Exception) else str(error).split(": ", 1)[-1][:120]


def _content(answer: RESTResponse) -> str:
    content: bytes = answer.read() or b""  # type: ignore[no-untyped-call]  # theirs
    return content.decode(errors="replace")


def _tree(text: str) -> JsonView:
    try:
        return JsonView(json.loads(text))
    except json.JSONDecodeError:
        raise ClusterRefused(
            "the answer is not JSON: is this address a Kubernetes API server?"
        ) from None
