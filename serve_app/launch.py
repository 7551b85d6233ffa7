"""Starts the application on a new Ray cluster on this machine, or on a running cluster."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import httpx

from serve_app.core.errors import StartFailed
from serve_app.hosting.node import NodeWatch, start_node, watch_node
from serve_app.hosting.ray_environment import common_environment, run_environment
from serve_app.hosting.reaper import Reaper
from serve_app.hosting.run_directory import (
    RunDirectory,
    close_run,
    create_run_directory,
    end_leftovers,
    own_run_directory,
    write_private_files,
)
from serve_app.settings import HttpSettings, Settings

LIVE_ROUTE_PREFIX = "/v1/realtime"

_POLL_S = 0.5
_CONTROLLER_POLL_S = 0.05
_OWN_PORTS = range(20_000, 30_000)
"""Above them are those of Serve's replicas and of outgoing connections, below those of Ray."""
_PORT_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class RunningApplication:
    """A started application.

    Attributes:
        url: of the API.
        page_url: of the web page, None without it.
        run: of the cluster that was started for it, None on a cluster that was running.
        watch: on the node of that cluster.
    """

    url: str
    page_url: str | None = None
    run: RunDirectory | None = None
    watch: NodeWatch | None = None

    def loss(self) -> str | None:
        """Returns why the node is lost, None while it runs."""
        return None if self.watch is None else self.watch.loss()


def prepare_environment(settings: Settings, expected_start_s: float | None = None) -> None:
    """Sets the environment variables that Ray reads when it is imported.

    Must run before the first import of Ray in this process.

    Args:
        settings: of the service.
        expected_start_s: for the Retry-After of refusals during the start; None if unknown.

    Raises:
        StartFailed: the run directory cannot be created.
    """
    os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1" if settings.http.haproxy else "0"
    for name, value in common_environment(settings).items():
        os.environ.setdefault(name, value)
    if settings.cluster.address is not None:
        return
    run = own_run_directory()
    if run is None:
        run = create_run_directory()
        atexit.register(close_run, run)
        write_private_files(run)
    fixed, changeable = run_environment(
        settings, run, free_port(settings.cluster.host), expected_start_s
    )
    os.environ.update(fixed)
    for name, value in changeable.items():
        os.environ.setdefault(name, value)
    if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN_PATH", str(run.token))


@contextmanager
def running(
    settings: Settings,
    on_progress: Callable[[str], None] = lambda message: None,
    *,
    shares_port: bool = False,
) -> Iterator[RunningApplication]:
    """Runs the application for the length of the `with` block.

    Without `settings.cluster.address` a Ray cluster is started on this machine
    and stopped at the end; otherwise the application is added to that cluster
    and stays there. `prepare_environment` must have been called.

    Args:
        settings: of the application.
        on_progress: called with progress messages.
        shares_port: a stand-in of this service listens on the port until the proxy does.

    Raises:
        ConfigurationError: API keys are required and there is no keys file.
        StartFailed: the port is in use, or a deployment failed or was not ready in time.
    """
    own = settings.cluster.address is None
    if own:
        # This process starts the listener, so it knows the bind address.
        auth = settings.auth.resolved(settings.http.host)
        settings = settings.model_copy(update={"auth": auth})
    settings.check_access()
    if not own:
        yield from _joined(settings, on_progress)
        return
    for process in end_leftovers():
        on_progress(f"ended process {process.pid} of an earlier run that had crashed")
    _check_port(settings.http, shared=shares_port)
    run = own_run_directory()
    if run is None:
        raise StartFailed("prepare_environment was not called in this process")
    reaper = Reaper(run)
    watch: NodeWatch | None = None
    try:
        on_progress("starting Ray")
        start_node(settings.cluster, run, (reaper.pid,))
        watch = watch_node()
        watch.start()
        started = _deploy(settings, on_progress, partial(_check_node, watch))
        yield replace(started, run=run, watch=watch)
    finally:
        _stop(watch)
        # It ends remaining processes, such as a HAProxy whose manager died.
        reaper.dismiss()


def _joined(settings: Settings, on_progress: Callable[[str], None]) -> Iterator[RunningApplication]:
    """Adds the application to a running cluster."""
    import ray

    on_progress(f"connecting to Ray at {settings.cluster.address}")
    try:
        ray.init(address=settings.cluster.address, log_to_driver=False, namespace="serve")
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StartFailed(f"no Ray cluster at {settings.cluster.address}: {reason}") from None
    yield _deploy(settings, on_progress, lambda: None)


def _check_node(watch: NodeWatch) -> None:
    """Raises:
    StartFailed: the node is lost.
    """
    if (loss := watch.loss()) is not None:
        raise StartFailed(f"the Ray node was lost during the start: {loss}")


def _deploy(
    settings: Settings, on_progress: Callable[[str], None], check: Callable[[], None]
) -> RunningApplication:
    """Deploys the application; returns when it is ready.

    Args:
        settings: of the application.
        on_progress: called with progress messages.
        check: called again and again; raises once the start can no longer succeed.
    """
    from ray import serve
    from ray.exceptions import RayError

    from serve_app.app import build, build_live, build_page
    from serve_app.deployments.ui import own_url

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    deadline = time.monotonic() + settings.cluster.start_timeout_s
    targets = [serve.RunTarget(build(settings), name=settings.app_name, route_prefix="/")]
    if settings.ui.enabled:
        name = f"{settings.app_name}-ui"
        page = build_page(settings)
        targets.append(serve.RunTarget(page, name=name, route_prefix=settings.ui.route_prefix))
    if settings.live.enabled:
        name = f"{settings.app_name}-live"
        targets.append(
            serve.RunTarget(build_live(settings), name=name, route_prefix=LIVE_ROUTE_PREFIX)
        )
    # The proxies take as long to start as the replicas, so neither waits for the other.
    with ThreadPoolExecutor(1, "start-serve") as pool:
        started = pool.submit(_start_serve, settings, deadline)
        _wait_for_controller(started, check)
        on_progress("starting the deployments")
        try:
            serve.run_many(targets, wait_for_applications_running=False)
        except RayError as error:
            raise StartFailed(_reason(str(error))) from None
        started.result()
    try:
        for target in targets:
            _wait_until_running(target.name, on_progress, deadline, check)
    except RayError as error:
        raise StartFailed(_reason(str(error))) from None
    url = own_url(settings.http)
    on_progress("waiting for the HTTP proxy")
    wait_until_ready(url, max(deadline - time.monotonic(), _POLL_S), check)
    return RunningApplication(
        url, f"{url}{settings.ui.route_prefix}/" if settings.ui.enabled else None
    )


def _wait_for_controller(started: Future[None], check: Callable[[], None]) -> None:
    """Returns once Serve's controller has a name, or the start has ended or failed."""
    import ray
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    while not started.done():
        check()
        with contextlib.suppress(ValueError):
            ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
            return
        time.sleep(_CONTROLLER_POLL_S)
    started.result()


def _start_serve(settings: Settings, deadline: float) -> None:
    """Starts Serve's controller and proxies.

    Raises:
        StartFailed: they did not start in time.
    """
    from ray import serve
    from ray.exceptions import RayError

    host = settings.http.host
    if settings.cluster.address is None and settings.http.haproxy:
        # HAProxy listens on `http.host` (`haproxy_launcher`); the proxies behind it need not.
        host = settings.cluster.host
    while True:
        try:
            serve.start(http_options={"host": host, "port": settings.http.port})
        except TimeoutError:
            # Serve waits a minute for its proxies; another call finds them or continues to wait.
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"Serve's proxies are not up after {settings.cluster.start_timeout_s:.0f} s"
                ) from None
        except RayError as error:
            raise StartFailed(_reason(str(error))) from None
        else:
            return


def _stop(watch: NodeWatch | None) -> None:
    """Ends the cluster, unless it has crashed already."""
    import ray
    from ray import serve

    if watch is not None:
        watch.stop()
        if watch.loss() is not None:
            return
        serve.shutdown()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
    ray.shutdown()


def free_port(host: str) -> int:
    """Returns a port that is free now and that no outgoing connection is given later.

    Raises:
        OSError: `host` is no address of this machine, or all the ports that were tried are in use.
    """
    *others, last = secrets.SystemRandom().sample(_OWN_PORTS, _PORT_ATTEMPTS)
    for port in others:
        with contextlib.suppress(OSError):
            return _bound(host, port)
    return _bound(host, last)


def _bound(host: str, port: int) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, port))
    return port


def _check_port(http: HttpSettings, *, shared: bool) -> None:
    """Checks that the port is free, before a cluster is started in vain.

    Raises:
        StartFailed: the port is in use.
    """
    with socket.socket(socket.AF_INET6 if ":" in http.host else socket.AF_INET) as probe:
        # As the proxy does: a port with connections in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            probe.bind((http.host, http.port))
        except OSError as error:
            raise StartFailed(
                f"cannot listen on {http.host}:{http.port} ({error.strerror}); "
                "choose another port with --set http.port=PORT"
            ) from None


def _wait_until_running(
    name: str, on_progress: Callable[[str], None], deadline: float, check: Callable[[], None]
) -> None:
    from ray import serve

    last_message = ""
    while time.monotonic() < deadline:
        check()
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
        if message != last_message:
            on_progress(message)
            last_message = message
        time.sleep(_POLL_S)
    raise StartFailed(f"not running within cluster.start_timeout_s; {last_message}")


def _reason(message: str) -> str:
    """Returns the error at the end of a remote traceback, without its module."""
    lines = [line for line in message.splitlines() if line.strip()]
    return re.sub(r"^serve_app(\.\w+)+\.(?=[A-Z])", "", lines[-1]) if lines else "no reason given"


def wait_until_ready(url: str, timeout_s: float, check: Callable[[], None] = lambda: None) -> None:
    """Waits until the service reports that all its deployments have warmed up.

    Args:
        url: of the service.
        timeout_s: longest wait.
        check: called again and again; raises once there is no use in waiting.

    Raises:
        StartFailed: it is not ready within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    with httpx.Client(base_url=url, timeout=10.0, trust_env=False) as client:
        while time.monotonic() < deadline:
            check()
            try:
                if client.get("/readyz").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            time.sleep(_POLL_S)
    raise StartFailed(f"{url}/readyz is not ready after {timeout_s:.0f} s")
