"""PolledProgress: what was computed is not forgotten with the actor that counted it."""

from __future__ import annotations

from serve_app.batch.progress import Computed
from serve_app.batch.ray_data import PolledProgress


def test_without_an_actor_nothing_was_computed() -> None:
    assert PolledProgress().value() == Computed(0.0, 0)


def test_later_answers_take_the_place_of_earlier_ones() -> None:
    polled = PolledProgress()
    polled.update(Computed(5.0, 50))
    polled.update(Computed(8.0, 80))
    assert polled.value() == Computed(8.0, 80)


def test_counts_of_a_lost_actor_are_kept() -> None:
    polled = PolledProgress()
    polled.update(Computed(8.0, 80))
    polled.update(Computed(1.0, 10))
    polled.update(Computed(2.0, 20))
    assert polled.value() == Computed(10.0, 100)
