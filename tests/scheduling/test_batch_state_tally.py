from __future__ import annotations

from dataclasses import replace

import pytest

from serve_app.scheduling.batch_state import BatcherStatistics, combine

IDLE = BatcherStatistics(0, 0, 0.0, 0, 0.0, 0.0, 0, 0, 0, 1.0, 0.0, 0)
QUICK = replace(IDLE, num_waiting=2, queued_audio_s=20.0, rtfx=20.0, num_batches=3, num_expired=1)
SLOW = replace(IDLE, running_audio_s=10.0, rtfx=5.0, oldest_wait_s=4.0, num_batches=1)


def test_audio_and_items_are_summed() -> None:
    total = combine([QUICK, SLOW, IDLE], waiting_audio_s=7.0, num_waiting=3)
    assert (total.num_waiting, total.queued_audio_s, total.running_audio_s) == (5, 27.0, 10.0)
    assert (total.num_batches, total.num_expired, total.oldest_wait_s) == (4, 1, 4.0)


def test_speed_counts_only_known_audio() -> None:
    # 20 s take 1 s, 10 s take 2 s.
    assert combine([QUICK, SLOW]).rtfx == pytest.approx(10.0)
    assert combine([QUICK, replace(IDLE, rtfx=1.0)]).rtfx == pytest.approx(20.0)


def test_speed_of_idle_models_is_known_as_well() -> None:
    assert combine([replace(IDLE, rtfx=10.0), replace(IDLE, rtfx=40.0)]).rtfx == pytest.approx(16.0)
    assert combine([IDLE, IDLE]).rtfx == 0.0


def test_statistics_of_one_batcher_are_unchanged_by_a_sum() -> None:
    assert combine([QUICK]) == QUICK
