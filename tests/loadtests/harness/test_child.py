"""Clocks, turns, and results of child processes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import pytest

from loadtests.bench.stages import Stopwatch
from loadtests.harness.child import Child, Cost, median_cost, rounds, run_child


def test_median_takes_each_clock_for_itself() -> None:
    costs = [Cost(1.0, 9.0), Cost(5.0, 1.0), Cost(2.0, 4.0)]
    assert median_cost(costs) == Cost(2.0, 4.0)


def test_median_of_nothing_is_refused() -> None:
    with pytest.raises(statistics.StatisticsError):
        median_cost([])


def test_peers_take_turns_and_have_medians_after_each() -> None:
    order: list[str] = []
    works = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    found = list(rounds(works, 3))
    assert order == ["a", "b"] * 3
    assert [set(costs) for costs in found] == [{"a", "b"}] * 3


def test_stopwatch_leaves_results_alone_and_adds_up() -> None:
    class Worker:
        def double(self, number: int) -> int:
            return 2 * number

        def count(self) -> Iterator[int]:
            yield from range(3)

    watch, worker = Stopwatch(), Worker()
    watch.watch(worker, "double", "doubling")
    watch.watch(worker, "count", "counting")
    assert worker.double(4) == 8
    assert list(worker.count()) == [0, 1, 2]
    assert set(watch.spent_s) == {"doubling", "counting"}


def test_child_that_fails_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="ended with code 1"):
        list(Child("loadtests.no_such_module").results())
    with pytest.raises(RuntimeError, match="ended"):
        run_child("loadtests.no_such_module")
