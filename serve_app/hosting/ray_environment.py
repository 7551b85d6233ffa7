"""The environment variables of Ray and Ray Serve that follow from the settings.

Ray reads most of them when it is imported, and every process of the run inherits them.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

from serve_app.api import flow
from serve_app.core.in_flight import NODE_ADDRESS_VARIABLE, RUN_DIRECTORY_VARIABLE
from serve_app.hosting.haproxy_launcher import OPTIONS_VARIABLE, ProxyOptions
from serve_app.hosting.run_directory import RunDirectory
from serve_app.settings import IngressSettings, Settings
from serve_app.settings.admission import is_loopback

LAUNCHER_IN_IMAGE = "/opt/venv/bin/paraserve-haproxy"
"""Where deploy/Dockerfile has `haproxy_launcher`."""

_HARD_STOP_MARGIN_S = 60

_PATIENCE = {
    # A slow or busy machine takes longer than Ray expects; whether the service comes up
    # is decided by `cluster.start_timeout_s` alone.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "RAY_gcs_server_port_wait_time_s": "120",
    "RAY_NUM_REDIS_GET_RETRIES": "120",
    "RAY_worker_register_timeout_seconds": "300",
}


def common_environment(settings: Settings) -> dict[str, str]:
    """Returns what Ray needs on any cluster that the service runs on."""
    return {
        flow.IMPORT_PATH_VARIABLE: flow.IMPORT_PATH,
        # Else HAProxy's manager labels Ray's metrics with whatever method a caller invents;
        # the ingress replicas, which then count instead, only see those that `api.front`
        # lets pass.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(hard_stop_after_s(settings.ingress)),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(settings.http.idle_timeout_s),
        "RAY_SERVE_HAPROXY_MAXCONN": str(settings.http.max_connections),
    }


def hard_stop_after_s(ingress: IngressSettings) -> int:
    """Returns after how long a HAProxy that a newer one has replaced drops its connections.

    Ray replaces it at every change of ingress replicas, so this must exceed the longest
    request. Ray's own default is 120 s.
    """
    return math.ceil(ingress.max_request_timeout_s) + _HARD_STOP_MARGIN_S


def run_environment(
    settings: Settings,
    run: RunDirectory,
    fallback_port: int,
    expected_start_s: float | None = None,
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns what a cluster of our own needs besides.

    Args:
        settings: of the service.
        run: where its files lie.
        fallback_port: one that is free, for the proxy that HAProxy falls back on.
        expected_start_s: see `proxy_options`.

    Returns:
        What must be so, and what the operator's own environment may say otherwise.
    """
    path = str(run.path)
    fixed = {
        RUN_DIRECTORY_VARIABLE: path,
        NODE_ADDRESS_VARIABLE: settings.cluster.host,
        OPTIONS_VARIABLE: json.dumps(asdict(proxy_options(settings, expected_start_s))),
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(run.haproxy),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{path}/haproxy.cfg",
        # Short names: Ray adds a directory of 56 characters, HAProxy a suffix.
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{path}/admin",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{path}/metrics",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": path,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{path}/state",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback_port),
        # No load balancer has to notice that a cluster of our own goes away.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }
    if is_loopback(settings.cluster.host):
        # Ray's switch for machines that it does not build clusters of: it then takes the
        # loopback address for the node's, which is what all of its ports listen on.
        fixed["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    changeable = {
        "RAY_AUTH_MODE": "token",
        # A proxy that died is replaced after three looks.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        **_PATIENCE,
    }
    return fixed, changeable


def proxy_options(settings: Settings, expected_start_s: float | None = None) -> ProxyOptions:
    """Returns what `haproxy_launcher` puts into HAProxy's configuration.

    Args:
        settings: of the service.
        expected_start_s: of a restarted service, in s; None for `haproxy_launcher`'s own guess.
    """
    options = ProxyOptions(
        header_timeout_s=settings.http.header_timeout_s,
        max_connections_per_address=settings.http.max_connections_per_address,
        expects_root=True,
        listen_host=settings.http.host,
    )
    if expected_start_s is None:
        return options
    return replace(options, start_s=max(1, round(expected_start_s)), shares_port=True)
