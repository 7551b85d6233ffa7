from __future__ import annotations

import pytest
from tenacity import Retrying, stop_after_attempt

from serve_app.scheduling.backoff import Backoff


@pytest.mark.parametrize(
    ("num_failures", "upper_s"), [(0, 0.5), (1, 0.5), (2, 1.0), (4, 4.0), (5, 5.0), (10**6, 5.0)]
)
def test_pauses_double_up_to_their_bound(num_failures: int, upper_s: float) -> None:
    pauses_s = [Backoff(0.5, 5.0).pause_s(num_failures) for _ in range(50)]
    assert all(upper_s / 2 <= pause_s <= upper_s for pause_s in pauses_s)


def test_calls_that_failed_together_do_not_come_back_together() -> None:
    assert len({Backoff().pause_s(3) for _ in range(50)}) > 40


def test_it_is_a_wait_strategy_for_tenacity() -> None:
    slept_s: list[float] = []

    def call() -> None:
        raise ConnectionError

    retrying = Retrying(
        stop=stop_after_attempt(4), wait=Backoff(1.0, 2.0), sleep=slept_s.append, reraise=True
    )
    with pytest.raises(ConnectionError):
        retrying(call)
    first_s, second_s, third_s = slept_s
    assert 0.5 <= first_s <= 1.0 <= second_s <= 2.0
    assert 1.0 <= third_s <= 2.0
