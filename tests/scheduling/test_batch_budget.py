"""BatchTimeModel: what it expects is what the engine does, and budgets follow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.scheduling.batch_budget import BatchLimits, BatchTimeModel

LIMITS = BatchLimits(max_cost=1000, max_s=1.0)


def test_without_a_time_limit_the_budget_stays() -> None:
    assert BatchTimeModel().limits(BatchLimits(1000)) == BatchLimits(1000)


def test_before_the_first_batch_an_item_runs_alone() -> None:
    assert BatchTimeModel().limits(LIMITS).max_cost == 0


@given(fixed_s=st.floats(0, 0.5), per_cost_s=st.floats(1e-4, 1e-2))
def test_budget_fills_the_time_limit_of_an_engine_with_a_fixed_part(
    fixed_s: float, per_cost_s: float
) -> None:
    pace = BatchTimeModel()
    now = 0.0
    for cost in (50, 500, 100, 400, 300, 50, 700, 20):
        took_s = fixed_s + per_cost_s * cost
        pace.observe(cost, 1.0, now, now + took_s)
        now += took_s
    budget = pace.limits(LIMITS).max_cost
    assert budget == pytest.approx(min(1000, (1.0 - fixed_s) / per_cost_s), abs=1.5)
    assert pace.expected_s(1000) == pytest.approx(fixed_s + per_cost_s * 1000, rel=1e-3)


def test_batches_that_are_alike_count_in_proportion() -> None:
    pace = BatchTimeModel()
    for number in range(5):
        pace.observe(100, 6.0, number, number + 0.5)
    assert pace.expected_s(200) == pytest.approx(1.0)
    assert pace.limits(LIMITS).max_cost == 200
    assert pace.rtfx == pytest.approx(12.0)


def test_budget_grows_by_steps_beyond_what_was_seen() -> None:
    pace = BatchTimeModel()
    pace.observe(10, 1.0, 0.0, 0.0001)
    assert pace.limits(LIMITS).max_cost == 40


def test_batches_that_overlap_count_no_second_twice() -> None:
    pace = BatchTimeModel()
    pace.observe(100, 10.0, 0.0, 1.0)
    pace.observe(100, 10.0, 0.5, 2.0)
    assert pace.rtfx == pytest.approx(10.0, rel=1e-6)


def test_engine_that_slows_down_gets_smaller_batches() -> None:
    pace = BatchTimeModel()
    now = 0.0
    for slowness in (0.001, 0.004):
        for cost in [100, 200, 300] * 20:
            pace.observe(cost, 1.0, now, now + cost * slowness)
            now += cost * slowness
    assert pace.limits(LIMITS).max_cost == pytest.approx(250, rel=0.2)
