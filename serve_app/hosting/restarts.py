"""Restarts `paraserve serve` in its own process when its Ray node has died.

The process becomes the command again, with the environment with which it was started, so an init
system or container sees one process that goes on. `stand_in` answers meanwhile.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from serve_app.hosting.run_directory import RunDirectory, close_run
from serve_app.hosting.stand_in import LONGEST_RETRY_S, PreparedStandIn, StandInTask
from serve_app.settings import HttpSettings

RESTART_VARIABLE = "PARASERVE_RESTART"
"""JSON in the environment of a restarted command: restarts so far, and expected start in s."""

_FIRST_START_S = 30.0
_MARGIN = 1.25
_LIMIT_S = 300.0
_STEADY_S = 600.0
"""A service that ran for so long may be restarted as often as a new one."""


@dataclass(slots=True)
class Restarts:
    """How often this command may restart itself.

    Attributes:
        most: consecutive restarts.
        num_done: of them, those before this start.
        environment: with which the command was started.
        clock: monotonic time in s.
    """

    most: int
    num_done: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    _began_s: float = 0.0
    _start_s: float = _FIRST_START_S
    _ready_s: float | None = None
    _stand_in: PreparedStandIn | None = None

    @classmethod
    def from_environment(cls, most: int) -> Restarts:
        """Reads what an earlier start of this process left; call it before Ray's settings."""
        environment = dict(os.environ)
        left = json.loads(environment.pop(RESTART_VARIABLE, '{"num_done": 0}'))
        os.environ.pop(RESTART_VARIABLE, None)
        restarts = cls(most, int(left["num_done"]), environment)
        restarts._began_s = restarts.clock()
        restarts._start_s = float(left.get("start_s", _FIRST_START_S))
        return restarts

    @property
    def is_restarted(self) -> bool:
        return self.num_done > 0

    @property
    def expected_start_s(self) -> float:
        """Expected time from a restart until the service is ready, in s."""
        return self._start_s

    def ready(self) -> None:
        """Measures how long the start took, and prepares for the next one."""
        self._ready_s = self.clock()
        self._start_s = min((self._ready_s - self._began_s) * _MARGIN + 1.0, LONGEST_RETRY_S)
        if self.most:
            self._stand_in = PreparedStandIn(self.environment)

    def may_restart(self) -> bool:
        """Returns whether another restart is allowed: only of a service that was ready."""
        return self._ready_s is not None and self._num_consecutive() < self.most

    def restart(self, http: HttpSettings, run: RunDirectory | None) -> None:
        """Becomes the command again; does not return.

        Args:
            http: where the service listens.
            run: what has died; its remaining processes are ended.
        """
        if self._stand_in is not None:
            self._stand_in.begin(StandInTask(http.host, http.port, self._start_s, _LIMIT_S))
        if run is not None:
            run.end_processes(0.0)
            close_run(run)
        left = {"num_done": self._num_consecutive() + 1, "start_s": round(self._start_s, 1)}
        environment = {**self.environment, RESTART_VARIABLE: json.dumps(left)}
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _become(restart_command(sys.argv), environment)

    def _num_consecutive(self) -> int:
        is_steady = self._ready_s is not None and self.clock() - self._ready_s >= _STEADY_S
        return 0 if is_steady else self.num_done


def restart_command(arguments: Sequence[str]) -> list[str]:
    """Returns the command that this process runs, given its `sys.argv`."""
    return [sys.executable, "-m", "serve_app.cli.main", *arguments[1:]]


def _become(command: Sequence[str], environment: Mapping[str, str]) -> None:
    os.execve(command[0], list(command), dict(environment))  # noqa: S606
