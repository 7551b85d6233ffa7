"""Starts the application on Ray: on a cluster of its own here, or on one that runs."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from serve_app.api import flow
from serve_app.core.errors import StartFailed
from serve_app.settings import HttpSettings, Settings

_READY_TIMEOUT_S = 300.0
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class RunningApplication:
    """Where a started application answers.

    Attributes:
        url: of the API.
        page_url: of the web page, None without it.
    """

    url: str
    page_url: str | None = None


def prepare_environment(settings: Settings) -> None:
    """Sets what Ray reads from the environment when it is imported.

    Must run before the first import of Ray in this process.
    """
    os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1" if settings.http.haproxy else "0"
    if settings.cluster.address is None:
        # No load balancer has to notice that a cluster of our own goes away.
        os.environ.setdefault("RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", "1")
    os.environ.setdefault(flow.IMPORT_PATH_VARIABLE, flow.IMPORT_PATH)
    # Else HAProxy's manager labels Ray's metrics with whatever method a caller invents; the
    # ingress replicas, which then count instead, only see those that `api.front` lets pass.
    os.environ.setdefault("RAY_SERVE_HAPROXY_METRICS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@contextmanager
def running(
    settings: Settings, on_progress: Callable[[str], None] = lambda message: None
) -> Iterator[RunningApplication]:
    """Runs the application for the length of the `with` block.

    Without `settings.cluster.address` a Ray cluster is started on this machine
    and stopped at the end; otherwise the application is added to that cluster
    and stays there.

    Args:
        settings: of the application.
        on_progress: told what is being waited for.

    Raises:
        ConfigurationError: API keys are demanded and there are none.
        StartFailed: the port is taken, a deployment failed or was not ready in time.
    """
    settings.check_access()
    own = settings.cluster.address is None
    if own:
        _check_port(settings.http)

    import ray
    from ray import serve

    from serve_app.app import build, build_page

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    on_progress("starting Ray" if own else f"connecting to Ray at {settings.cluster.address}")
    if own:
        ray.init(
            # Else it would join a cluster that runs on this machine, or RAY_ADDRESS.
            address="local",
            num_cpus=settings.cluster.num_cpus,
            object_store_memory=settings.cluster.object_store_bytes,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            namespace="serve",
            _metrics_export_port=settings.cluster.metrics_port,
        )
    else:
        ray.init(address=settings.cluster.address, log_to_driver=False, namespace="serve")
    try:
        serve.start(http_options={"host": settings.http.host, "port": settings.http.port})
        on_progress("starting the deployments")
        targets = [serve.RunTarget(build(settings), name=settings.app_name, route_prefix="/")]
        if settings.ui.enabled:
            name = f"{settings.app_name}-ui"
            page = build_page(settings)
            targets.append(serve.RunTarget(page, name=name, route_prefix=settings.ui.route_prefix))
        serve.run_many(targets, wait_for_applications_running=False)
        for target in targets:
            _wait_until_running(target.name, on_progress)
        url = f"http://{_reachable(settings.http.host)}:{settings.http.port}"
        on_progress("waiting for the HTTP proxy")
        wait_until_ready(url, _READY_TIMEOUT_S)
        yield RunningApplication(
            url, f"{url}{settings.ui.route_prefix}/" if settings.ui.enabled else None
        )
    finally:
        if own:
            serve.shutdown()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
            ray.shutdown()


def _check_port(http: HttpSettings) -> None:
    """Tells that the port is taken before a cluster is started in vain."""
    with socket.socket(socket.AF_INET6 if ":" in http.host else socket.AF_INET) as probe:
        # As the proxy will: a port that a closed connection still lingers on is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((http.host, http.port))
        except OSError as error:
            raise StartFailed(
                f"cannot listen on {http.host}:{http.port} ({error.strerror}); "
                "choose another port with --set http.port=PORT"
            ) from None


def _wait_until_running(name: str, on_progress: Callable[[str], None]) -> None:
    from ray import serve

    deadline = time.monotonic() + _READY_TIMEOUT_S
    told = ""
    while time.monotonic() < deadline:
        application = serve.status().applications[name]
        if application.status == "RUNNING":
            return
        failed = [
            f"{deployment_name}: {_reason(deployment.message)}"
            for deployment_name, deployment in application.deployments.items()
            if deployment.status in {"DEPLOY_FAILED", "UNHEALTHY"}
        ]
        if application.status == "DEPLOY_FAILED" or failed:
            raise StartFailed("; ".join(failed) or _reason(application.message))
        waiting = [
            deployment_name
            for deployment_name, deployment in application.deployments.items()
            if deployment.status != "HEALTHY"
        ]
        message = f"waiting for {', '.join(waiting)}"
        if message != told:
            on_progress(message)
            told = message
        time.sleep(_POLL_S)
    raise StartFailed(f"not running after {_READY_TIMEOUT_S:.0f} s; {told}")


def _reason(message: str) -> str:
    """Returns the error at the end of a remote traceback, without its module."""
    lines = [line for line in message.splitlines() if line.strip()]
    return re.sub(r"^serve_app(\.\w+)+\.(?=[A-Z])", "", lines[-1]) if lines else "no reason given"


def wait_until_ready(url: str, timeout_s: float) -> None:
    """Waits until the service says that all its deployments have warmed up.

    Raises:
        StartFailed: it did not within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    with httpx.Client(base_url=url, timeout=10.0, trust_env=False) as client:
        while time.monotonic() < deadline:
            try:
                if client.get("/readyz").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            time.sleep(_POLL_S)
    raise StartFailed(f"{url}/readyz is not ready after {timeout_s:.0f} s")


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104
