"""The Ray node that `paraserve serve` starts on this machine."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from serve_app.core.errors import StartFailed
from serve_app.hosting.run_directory import RunDirectory
from serve_app.settings import ClusterSettings
from serve_app.settings.admission import is_loopback

_VITAL = ("raylet", "gcs_server")
"""Processes that the node requires; Ray itself ends the raylet if its agents die."""
_ATTEMPTS = 3
_CONTROLLER_PERIOD_S = 5.0
_CONTROLLER_TIMEOUT_S = 60.0


class ChildProcess(Protocol):
    """A process whose `poll` returns None while it runs."""

    def poll(self) -> int | None: ...


class NodeWatch:
    """Detects the death of the node.

    Args:
        processes: those that the node requires, by name.
        has_controller: whether Serve's controller exists or is being restarted; may block
            while the node is dying, so it is called in a separate thread.
    """

    def __init__(
        self,
        processes: Mapping[str, ChildProcess],
        has_controller: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._processes = processes
        self._has_controller = has_controller
        self._clock = clock
        self._seen_s = clock()
        self._stopped = threading.Event()

    def start(self) -> None:
        threading.Thread(
            target=self._watch_controller, name="controller-watch", daemon=True
        ).start()

    def stop(self) -> None:
        self._stopped.set()

    def loss(self) -> str | None:
        """Returns a description of what failed, None while the node works."""
        for name, process in self._processes.items():
            code = process.poll()
            if code is not None:
                return f"{name} has ended ({_ending(code)})"
        missing_s = self._clock() - self._seen_s
        if missing_s > _CONTROLLER_TIMEOUT_S:
            return f"Serve's controller has been missing for {missing_s:.0f} s"
        return None

    def check_controller(self) -> None:
        """Checks once whether the controller exists."""
        try:
            exists = self._has_controller()
        except Exception:  # any error means that there is no answer
            exists = False
        if exists:
            self._seen_s = self._clock()

    def _watch_controller(self) -> None:
        while not self._stopped.wait(_CONTROLLER_PERIOD_S):
            self.check_controller()


def start_node(settings: ClusterSettings, run: RunDirectory, kept: tuple[int, ...]) -> None:
    """Starts a Ray node that this process owns.

    If Ray gives up because the machine is slow, the start is repeated.

    Args:
        settings: size and addresses of the node.
        run: directory of its files.
        kept: processes of the run that a failed attempt must not end.

    Raises:
        StartFailed: the node did not start.
    """
    import ray

    deadline = time.monotonic() + settings.start_timeout_s
    # Only this user may read what Ray's processes write.
    mask = os.umask(0o077)
    try:
        for attempt in range(_ATTEMPTS):
            try:
                _init(settings, run)
            except Exception as error:
                ray.shutdown()
                run.end_processes(0.0, but=kept)
                if attempt == _ATTEMPTS - 1 or time.monotonic() > deadline:
                    reason = " ".join(str(error).split()) or type(error).__name__
                    raise StartFailed(
                        f"Ray did not start: {reason} (its logs: {run.ray})"
                    ) from None
            else:
                return
    finally:
        os.umask(mask)


def watch_node() -> NodeWatch:
    """Returns the watch of the node that this process has started."""
    import ray
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    node: Any = ray._private.worker._global_node
    processes: dict[str, subprocess.Popen[bytes]] = {
        name: entries[0].process
        for name, entries in node.all_processes.items()
        if name in _VITAL and entries
    }

    def has_controller() -> bool:
        try:
            ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
        except ValueError:
            return False
        return True

    return NodeWatch(processes, has_controller)


def _init(settings: ClusterSettings, run: RunDirectory) -> None:
    import ray

    reload_token()
    # A loopback address is set in the environment; Ray does not accept it here.
    address: Any = {} if is_loopback(settings.host) else {"_node_ip_address": settings.host}
    ray.init(
        # Otherwise it would join RAY_ADDRESS or a cluster that runs on this machine.
        address="local",
        num_cpus=settings.num_cpus,
        object_store_memory=settings.object_store_bytes,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        namespace="serve",
        _metrics_export_port=settings.metrics_port,
        _temp_dir=str(run.ray),
        **address,
    )


def reload_token() -> None:
    """Makes Ray read its auth mode and token from the environment again.

    If Ray was imported before the environment was prepared, as in tests, it has read both
    already.
    """
    from ray import _raylet

    raylet: Any = _raylet
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _ending(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
