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
from serve_app.settings import Settings
from serve_app.settings.admission import is_loopback

LAUNCHER_IN_IMAGE = "/opt/venv/bin/paraserve-haproxy"
"""Path of `haproxy_launcher` in the image of deploy/Dockerfile."""

_HARD_STOP_MARGIN_S = 60

_START_TIMEOUTS = {
    # A slow or busy machine takes longer than Ray's defaults allow; only
    # `cluster.start_timeout_s` limits the start.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "RAY_gcs_server_port_wait_time_s": "120",
    "RAY_NUM_REDIS_GET_RETRIES": "120",
    "RAY_worker_register_timeout_seconds": "300",
}


def common_environment(settings: Settings) -> dict[str, str]:
    """Returns the variables for any cluster that runs the service."""
    return {
        flow.IMPORT_PATH_VARIABLE: flow.IMPORT_PATH,
        # Otherwise HAProxy's manager labels Ray's metrics with any method that a client
        # invents. Ingress replicas, which count instead, only see methods that `api.front`
        # accepts.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(hard_stop_after_s(settings)),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(settings.http.idle_timeout_s),
        "RAY_SERVE_HAPROXY_MAXCONN": str(settings.http.max_connections),
    }


def hard_stop_after_s(settings: Settings) -> int:
    """Returns the time after which a replaced HAProxy drops its connections.

    Ray replaces HAProxy at every change of ingress replicas, so this must exceed the longest
    request and the longest live session. Ray's default is 120 s.
    """
    longest_s = settings.ingress.max_request_timeout_s
    if settings.live.enabled:
        longest_s = max(longest_s, settings.live.max_session_s)
    return math.ceil(longest_s) + _HARD_STOP_MARGIN_S


def run_environment(
    settings: Settings,
    run: RunDirectory,
    fallback_port: int,
    expected_start_s: float | None = None,
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the additional variables for a cluster that this process starts.

    Args:
        settings: of the service.
        run: directory of its files.
        fallback_port: a free port for the proxy that HAProxy falls back on.
        expected_start_s: see `proxy_options`.

    Returns:
        The fixed variables, and those that the operator's environment may override.
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
        # No load balancer has to detect the end of a local cluster.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }
    if is_loopback(settings.cluster.host):
        # Ray's switch for systems without multi-node clusters: the node, and with it all of
        # its ports, then uses the loopback address.
        fixed["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    changeable = {
        "RAY_AUTH_MODE": "token",
        # A dead proxy is replaced after three failed checks.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        **_START_TIMEOUTS,
    }
    return fixed, changeable


def proxy_options(settings: Settings, expected_start_s: float | None = None) -> ProxyOptions:
    """Returns the options of `haproxy_launcher`.

    Args:
        settings: of the service.
        expected_start_s: of a restarted service, in s; None for the launcher's own estimate.
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
