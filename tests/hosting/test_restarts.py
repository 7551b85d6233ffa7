from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from serve_app.hosting import restarts as module
from serve_app.hosting.restarts import RESTART_VARIABLE, Restarts, restart_command
from serve_app.hosting.stand_in import StandInTask
from serve_app.settings import HttpSettings


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def restarts_of(most: int, num_done: int = 0) -> tuple[Restarts, Clock]:
    clock = Clock()
    return Restarts(most, num_done, {"PATH": "/bin"}, clock, clock()), clock


@pytest.fixture
def becoming(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Records the stand-in and the command in place of starting them."""
    seen: dict[str, Any] = {}

    def become(command: Sequence[str], environment: Mapping[str, str]) -> None:
        seen["command"], seen["environment"] = command, environment

    class StandIn:
        def __init__(self, environment: object) -> None:
            pass

        def begin(self, task: StandInTask) -> None:
            seen["stand_in"] = (task.host, task.port, task.start_s)

    monkeypatch.setattr(module, "_become", become)
    monkeypatch.setattr(module, "PreparedStandIn", StandIn)
    return seen


def test_service_that_was_never_ready_is_not_restarted() -> None:
    restarts, _ = restarts_of(3)
    assert not restarts.may_restart()
    restarts.ready()
    assert restarts.may_restart()


def test_restarts_in_a_row_are_bounded() -> None:
    restarts, clock = restarts_of(3, num_done=3)
    restarts.ready()
    assert not restarts.may_restart()
    clock.now_s += 3600
    assert restarts.may_restart()


def test_none_is_made_unless_asked_for() -> None:
    restarts, _ = restarts_of(0)
    restarts.ready()
    assert not restarts.may_restart()


def test_next_start_knows_what_the_last_one_took(becoming: dict[str, Any]) -> None:
    restarts, clock = restarts_of(3, num_done=1)
    clock.now_s += 20
    restarts.ready()
    restarts.restart(HttpSettings(port=8123), None)
    left = json.loads(becoming["environment"][RESTART_VARIABLE])
    assert left == {"num_done": 2, "start_s": 26.0}
    assert becoming["environment"]["PATH"] == "/bin"
    assert becoming["stand_in"] == ("127.0.0.1", 8123, 26.0)


def test_environment_of_the_start_is_kept_before_rays_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(RESTART_VARIABLE, '{"num_done": 2, "start_s": 12.5}')
    restarts = Restarts.from_environment(3)
    assert (restarts.num_done, restarts.expected_start_s) == (2, 12.5)
    assert restarts.is_restarted
    assert RESTART_VARIABLE not in restarts.environment
    assert RESTART_VARIABLE not in os.environ


def test_command_keeps_its_options() -> None:
    *_, serve, option, value = restart_command(["/bin/paraserve", "serve", "--set", "http.port=1"])
    assert (serve, option, value) == ("serve", "--set", "http.port=1")
