"""What the square wave's report makes of a run."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.harness.report import Report
from loadtests.square_wave import Plan, Sample, first_upscale_delay_s, judge, num_turns
from tests.loadtests.conftest import kept


def run_of(targets: Sequence[int], backlog_s: Sequence[float] | None = None) -> list[Sample]:
    backlog = backlog_s or [0.0] * len(targets)
    return [
        Sample(float(at), target, target, audio_s, rtfx=10.0)
        for at, (target, audio_s) in enumerate(zip(targets, backlog, strict=True))
    ]


def test_up_and_down_is_one_turn() -> None:
    assert num_turns(run_of([1, 2, 3, 3, 2, 1]), 100.0) == 1


def test_changes_after_the_wave_do_not_count() -> None:
    assert num_turns(run_of([1, 2, 3, 3, 2, 1]), 3.0) == 0


def test_delay_counts_from_passing_the_threshold_for_good() -> None:
    run = run_of([1, 1, 1, 1, 1, 2], [0.0, 200.0, 10.0, 200.0, 200.0, 200.0])
    assert first_upscale_delay_s(run, 10.0) == 2.0


def test_without_scale_up_there_is_no_delay() -> None:
    assert first_upscale_delay_s(run_of([1, 1], [500.0, 500.0]), 10.0) is None


def test_recognizers_that_follow_and_come_down_keep_every_promise(report: Report) -> None:
    samples = run_of([1, 1, 1, 2, 2, 1], [0.0, 200.0, 200.0, 200.0, 0.0, 0.0])
    report.table("Changes", ("at s",))
    judge(report, samples, Plan(4.0, 1.5, 2))
    assert kept(report) == [True, True, True]


def test_recognizers_that_never_move_or_stay_break_theirs(report: Report) -> None:
    report.table("Changes", ("at s",))
    judge(report, run_of([1, 1]), Plan(4.0, 1.5, 2))
    judge(report, run_of([1, 2, 1, 2], [200.0] * 4), Plan(4.0, 1.5, 2))
    assert kept(report) == [False, True, True, True, False, False]
