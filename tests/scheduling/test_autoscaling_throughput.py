"""Measured flow of audio."""

from __future__ import annotations

import pytest

from serve_app.scheduling.autoscaling import EwmaRate


def run(flow: EwmaRate, start: float, num: int) -> float:
    """10 s of audio every 4 s; returns the end."""
    for step in range(num):
        flow.done(10.0, start + 4.0 * step + 2.0)
    return start + 4.0 * num


def test_flow_is_unknown_before_any_work_is_done() -> None:
    assert EwmaRate(60.0, 0.0).read(10.0) == 0.0


def test_a_steady_flow_is_its_rate() -> None:
    flow = EwmaRate(60.0, 0.0)
    assert flow.read(run(flow, 0.0, 100)) == pytest.approx(2.5, rel=0.05)


def test_a_flow_that_has_just_begun_is_right_as_well() -> None:
    flow = EwmaRate(60.0, 0.0)
    assert flow.read(run(flow, 0.0, 5)) == pytest.approx(2.5, rel=0.1)


def test_a_pause_ends_the_flow() -> None:
    flow = EwmaRate(60.0, 0.0)
    now = run(flow, 0.0, 100)
    assert flow.read(now + 3600.0) == pytest.approx(0.0, abs=1e-6)
