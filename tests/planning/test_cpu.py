"""Cores that threads share, and cores of their own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.planning.cpu import Clock, OwnCores, SharedCores


def ends_s(num_cores: float, works_s: list[float], slowdown: float = 1.0) -> list[float]:
    clock = Clock()
    cores = SharedCores(clock, num_cores, slowdown)
    ended = [0.0] * len(works_s)

    def end(index: int) -> None:
        ended[index] = clock.now

    for index, work_s in enumerate(works_s):
        cores.run(work_s, end, index)
    clock.run()
    return ended


def test_separate_cores_do_not_slow_other_stages() -> None:
    clock = Clock()
    ended: list[float] = []
    for work_s in (2.0, 1.0):
        OwnCores(clock).run(work_s, lambda _: ended.append(clock.now), delay_s=0.5)
    clock.run()
    assert ended == [1.5, 2.5]


def test_fewer_threads_than_cores_run_at_full_speed() -> None:
    assert ends_s(2, [1.0, 3.0]) == pytest.approx([1.0, 3.0])


def test_more_threads_than_cores_share_them_evenly() -> None:
    # All three at 2/3 until the first is done at 1.5; then each has a core.
    assert ends_s(2, [1.0, 2.0, 2.0]) == pytest.approx([1.5, 2.5, 2.5])


def test_busy_neighbors_slow_a_thread_down() -> None:
    assert ends_s(2, [1.0, 1.0], slowdown=1.5) == pytest.approx([1.5, 1.5])


def test_other_programs_take_their_share() -> None:
    clock = Clock()
    cores = SharedCores(clock, 1.0)
    cores.follow([(1.0, 1.0)])
    ended: list[float] = []
    cores.run(2.0, lambda _: ended.append(clock.now))
    clock.run()
    assert ended == pytest.approx([3.0])


def test_a_delay_occupies_no_core() -> None:
    clock = Clock()
    cores = SharedCores(clock, 1.0)
    ended: list[float] = []
    for _ in range(2):
        cores.run(1.0, lambda _: ended.append(clock.now), delay_s=5.0)
    clock.run()
    assert ended == pytest.approx([7.0, 7.0])


@given(
    works_s=st.lists(st.floats(0.001, 100.0), min_size=1, max_size=20),
    num_cores=st.floats(0.5, 8.0),
)
@settings(max_examples=60, deadline=None)
def test_work_is_neither_lost_nor_done_faster_than_the_cores_allow(
    works_s: list[float], num_cores: float
) -> None:
    ended = ends_s(num_cores, works_s)
    last_s = max(ended)
    assert last_s >= max(max(works_s), sum(works_s) / num_cores) - 1e-6
    assert last_s <= sum(works_s) / min(1.0, num_cores) + 1e-6
    assert sorted(ended) == [ended[i] for i in sorted(range(len(ended)), key=works_s.__getitem__)]
