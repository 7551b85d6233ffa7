from __future__ import annotations

import pytest

from serve_app.batch.via_service import retry_while_unreachable
from serve_app.core.errors import AudioError, NotReady


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, time_s: float) -> None:
        self.now_s += time_s


class Away:
    """A service that is away for a time."""

    def __init__(self, clock: Clock, until_s: float) -> None:
        self.clock = clock
        self.until_s = until_s
        self.num_calls = 0

    async def __call__(self) -> str:
        self.num_calls += 1
        if self.clock() < self.until_s:
            raise NotReady("asr")
        return "text"


async def test_service_that_comes_back_is_waited_for() -> None:
    clock = Clock()
    call = Away(clock, 60.0)
    assert await retry_while_unreachable(call, 900.0, clock, clock.sleep) == "text"
    assert 60 <= clock() <= 75
    assert call.num_calls < 12


async def test_service_that_stays_away_is_given_up() -> None:
    clock = Clock()
    with pytest.raises(NotReady):
        await retry_while_unreachable(Away(clock, 1e9), 900.0, clock, clock.sleep)
    assert 880 <= clock() <= 900


async def test_other_errors_are_not_waited_out() -> None:
    clock = Clock()

    async def call() -> str:
        raise AudioError

    with pytest.raises(AudioError):
        await retry_while_unreachable(call, 900.0, clock, clock.sleep)
    assert clock() == 0.0
