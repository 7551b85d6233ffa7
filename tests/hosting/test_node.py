"""A node that has died is noticed."""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.hosting.node import NodeWatch


@dataclass
class Child:
    code: int | None = None

    def poll(self) -> int | None:
        return self.code


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_living_node_has_lost_nothing() -> None:
    assert NodeWatch({"raylet": Child()}, lambda: True).loss() is None


def test_process_that_was_killed_is_named() -> None:
    raylet = Child()
    watch = NodeWatch({"gcs_server": Child(), "raylet": raylet}, lambda: True)
    raylet.code = -9
    assert watch.loss() == "raylet has ended (killed by signal 9)"
    raylet.code = 1
    assert watch.loss() == "raylet has ended (exit code 1)"


def test_controller_that_stays_away_is_a_loss_and_one_that_is_restarted_is_none() -> None:
    clock = Clock()
    there = [False, False, True, False]

    def has_controller() -> bool:
        return there.pop(0)

    watch = NodeWatch({}, has_controller, clock)
    for clock.now_s in (20.0, 40.0, 55.0):
        watch.check_controller()
        assert watch.loss() is None
    clock.now_s = 116.0
    watch.check_controller()
    assert "controller" in str(watch.loss())


def test_cluster_that_does_not_answer_counts_as_without_controller() -> None:
    clock = Clock()

    def fails() -> bool:
        raise ConnectionError

    watch = NodeWatch({}, fails, clock)
    clock.now_s = 61.0
    watch.check_controller()
    assert watch.loss() is not None
