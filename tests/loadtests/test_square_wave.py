"""What the square wave's report makes of a run."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.square_wave import Run, Sample


def run_of(targets: Sequence[int], backlog_s: Sequence[float] | None = None) -> Run:
    backlog = backlog_s or [0.0] * len(targets)
    samples = [
        Sample(float(at), target, target, audio_s, rtfx=10.0)
        for at, (target, audio_s) in enumerate(zip(targets, backlog, strict=True))
    ]
    return Run(samples)


def test_up_and_down_is_one_turn() -> None:
    assert run_of([1, 2, 3, 3, 2, 1]).num_turns(100.0) == 1


def test_changes_after_the_wave_do_not_count() -> None:
    assert run_of([1, 2, 3, 3, 2, 1]).num_turns(3.0) == 0


def test_delay_counts_from_passing_the_threshold_for_good() -> None:
    run = run_of([1, 1, 1, 1, 1, 2], [0.0, 200.0, 10.0, 200.0, 200.0, 200.0])
    assert run.first_upscale_delay_s(target_drain_s=10.0) == 2.0


def test_without_scale_up_there_is_no_delay() -> None:
    assert run_of([1, 1], [500.0, 500.0]).first_upscale_delay_s(10.0) is None
