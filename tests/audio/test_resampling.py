from __future__ import annotations

import numpy as np
import pytest

from serve_app.audio.layout import MonoFrame
from serve_app.audio.resampling import PcmResampler
from serve_app.core.records import Pcm
from tests.audio import recordings


def resample(*frames: MonoFrame) -> Pcm:
    resampler = PcmResampler()
    return np.concatenate([*(resampler.push(block) for block in frames), resampler.finish()])


def test_blocks_leave_no_seam() -> None:
    samples = recordings.sine(1.0, 44_100)
    parts = [MonoFrame(part, 44_100) for part in np.array_split(samples, 37)]

    np.testing.assert_array_equal(resample(*parts), resample(MonoFrame(samples, 44_100)))


def test_a_change_of_rate_keeps_the_total_length() -> None:
    pcm = resample(
        MonoFrame(recordings.sine(1.0, 44_100), 44_100),
        MonoFrame(recordings.sine(1.0, 16_000), 16_000),
        MonoFrame(recordings.sine(1.0, 8_000), 8_000),
    )

    assert abs(len(pcm) - 48_000) <= 2


def test_samples_are_rounded_and_clipped() -> None:
    samples = np.array([0.6, -0.6, 0.4, 40_000, -40_000, 1e30], np.float32) / np.float32(32768)

    assert resample(MonoFrame(samples, 16_000)).tolist() == [1, -1, 0, 32767, -32768, 32767]


@pytest.mark.parametrize("rate_hz", [8_000, 48_000])
def test_a_single_sample_is_accepted(rate_hz: int) -> None:
    assert len(resample(MonoFrame(np.ones(1, np.float32), rate_hz))) <= 2


def test_nothing_in_is_nothing_out() -> None:
    assert len(resample()) == 0
