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
"""The processes without which the node is dead; Ray itself ends the raylet if its agents die."""
_ATTEMPTS = 3
_CONTROLLER_PERIOD_S = 5.0
_CONTROLLER_AWAY_S = 60.0


class ChildProcess(Protocol):
    """What is asked of a process: None while it runs."""

    def poll(self) -> int | None: ...


class NodeWatch:
    """Tells when the node has died.

    Args:
        processes: by name, those that the node cannot do without.
        has_controller: whether Serve's controller is there or is being restarted; may
            block while the node is dying, and is asked in a thread of its own.
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
        threading.Thread(target=self._look, name="controller-watch", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def loss(self) -> str | None:
        """Returns what the node has lost, None while it lives."""
        for name, process in self._processes.items():
            code = process.poll()
            if code is not None:
                return f"{name} has ended ({_ending(code)})"
        away_s = self._clock() - self._seen_s
        if away_s > _CONTROLLER_AWAY_S:
            return f"Serve's controller has been away for {away_s:.0f} s"
        return None

    def look_once(self) -> None:
        """Asks for the controller."""
        try:
            is_there = self._has_controller()
        except Exception:  # whatever it is, there is no answer
            is_there = False
        if is_there:
            self._seen_s = self._clock()

    def _look(self) -> None:
        while not self._stopped.wait(_CONTROLLER_PERIOD_S):
            self.look_once()


def start_node(settings: ClusterSettings, run: RunDirectory, kept: tuple[int, ...]) -> None:
    """Starts Ray in this process's name.

    A node that Ray gives up for being slow is tried again.

    Args:
        settings: how large it is and where it listens.
        run: where its files lie.
        kept: processes of the run that must outlive a failed try.

    Raises:
        StartFailed: it did not come up.
    """
    import ray

    deadline = time.monotonic() + settings.start_timeout_s
    # What Ray's processes write is their user's alone.
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
                        f"Ray did not come up: {reason} (its logs: {run.ray})"
                    ) from None
            else:
                return
    finally:
        os.umask(mask)


def watch_node() -> NodeWatch:
    """Returns a watch over the node that this process has started."""
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

    look_for_token_again()
    # On a loopback address the environment says so; Ray takes no such address here.
    address: Any = {} if is_loopback(settings.host) else {"_node_ip_address": settings.host}
    ray.init(
        # Else it would join a cluster that runs on this machine, or RAY_ADDRESS.
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


def look_for_token_again() -> None:
    """Has Ray heed the mode and token of the environment as it is now.

    Where Ray was imported before the environment was prepared, as by tests, it has looked
    for both already.
    """
    from ray import _raylet

    raylet: Any = _raylet
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _ending(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
