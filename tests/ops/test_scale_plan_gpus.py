"""Fractions of GPUs."""

from __future__ import annotations

import pytest

from serve_app.ops.scale_plan import Demand, num_gpus_needed, untiled


def demands(*sizes: float, count: int = 1) -> list[Demand]:
    return [Demand(f"d{index}", size, count) for index, size in enumerate(sizes)]


@pytest.mark.parametrize("sizes", [(0.5, 0.25, 0.25), (0.75, 0.25), (0.33,), (1.0,), (2.0, 0.5)])
def test_fractions_that_fill_a_gpu_are_accepted(sizes: tuple[float, ...]) -> None:
    assert untiled(demands(*sizes)) == []


@pytest.mark.parametrize(("sizes", "odd"), [((0.6,), ["d0"]), ((0.5, 0.3), ["d1"])])
def test_fractions_that_leave_a_rest_are_named(sizes: tuple[float, ...], odd: list[str]) -> None:
    assert [demand.name for demand in untiled(demands(*sizes))] == odd


def test_large_fractions_are_placed_before_small_ones() -> None:
    assert num_gpus_needed([Demand("p", 0.25, 4), Demand("r", 0.75, 4)]) == 4


def test_whole_gpus_count_by_replica() -> None:
    assert num_gpus_needed([Demand("a", 2.0, 3), Demand("b", 0.5, 3)]) == 8
