from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from serve_app.audio.layout import Frame
from serve_app.audio.resampling import PcmResampler
from serve_app.core.records import Pcm
from tests.audio import recordings


def mono(samples: npt.NDArray[np.float32], rate_hz: int) -> Frame:
    return Frame(samples[None], rate_hz)


def resample(*frames: Frame) -> Pcm:
    resampler = PcmResampler()
    blocks = [*(resampler.push(block) for block in frames), resampler.finish()]
    pcm: Pcm = np.concatenate(blocks, axis=1)[0]
    return pcm


def test_blocks_leave_no_seam() -> None:
    samples = recordings.sine(1.0, 44_100)
    parts = [mono(part, 44_100) for part in np.array_split(samples, 37)]

    np.testing.assert_array_equal(resample(*parts), resample(mono(samples, 44_100)))


def test_a_change_of_rate_keeps_the_total_length() -> None:
    pcm = resample(
        mono(recordings.sine(1.0, 44_100), 44_100),
        mono(recordings.sine(1.0, 16_000), 16_000),
        mono(recordings.sine(1.0, 8_000), 8_000),
    )

    assert abs(len(pcm) - 48_000) <= 2


def test_samples_are_rounded_and_clipped() -> None:
    samples = np.array([0.6, -0.6, 0.4, 40_000, -40_000, 1e30], np.float32) / np.float32(32768)

    assert resample(mono(samples, 16_000)).tolist() == [1, -1, 0, 32767, -32768, 32767]


@pytest.mark.parametrize("rate_hz", [8_000, 48_000])
def test_a_single_sample_is_accepted(rate_hz: int) -> None:
    assert len(resample(mono(np.ones(1, np.float32), rate_hz))) <= 2


def test_nothing_in_is_nothing_out() -> None:
    assert len(resample()) == 0


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
def test_a_channel_is_resampled_as_if_it_were_alone(rate_hz: int) -> None:
    left, right = recordings.sine(1.0, rate_hz), 0.5 * recordings.sine(1.0, rate_hz)[::-1]
    resampler = PcmResampler(2)
    both = np.stack([left, right])

    pcm = [resampler.push(Frame(part, rate_hz)) for part in np.array_split(both, 7, axis=1)]
    pcm.append(resampler.finish())

    for channel, alone in zip(np.concatenate(pcm, axis=1), (left, right), strict=True):
        np.testing.assert_array_equal(channel, resample(mono(alone, rate_hz)))
