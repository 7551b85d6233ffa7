"""Bytes of every format become the samples that a reference decoder makes of them."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st

from serve_app.core.errors import UnsupportedAudioLayout
from serve_app.core.records import Pcm
from serve_app.live.audio_input import AudioInput, duration_ms_of, num_bytes_of
from serve_app.live.records import AudioFormat, Encoding
from tests.fakes.sentence_edges import demo_recording

_AV_FORMATS: dict[Encoding, str] = {"mulaw": "mulaw", "alaw": "alaw"}


def _all_of(source: AudioInput, data: bytes, step: int) -> Pcm:
    parts = [source.push(data[start : start + step]) for start in range(0, len(data), step)]
    return np.concatenate([*parts, source.flush()])


@pytest.mark.parametrize("encoding", list(_AV_FORMATS))
def test_g711_is_decoded_as_by_ffmpeg(encoding: Encoding) -> None:
    codes = bytes(range(256))
    codec: Any = av.CodecContext.create(f"pcm_{_AV_FORMATS[encoding]}", "r")
    codec.sample_rate = 16_000
    codec.layout = "mono"
    frames = codec.decode(av.Packet(codes))
    expected = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    assert AudioInput(AudioFormat(encoding, 16_000)).push(codes).tolist() == expected.tolist()


def test_pcm_at_16_khz_passes_unchanged_however_it_is_divided() -> None:
    pcm = demo_recording()[:4000]
    for step in (1, 3, 640, 8000):
        heard = _all_of(AudioInput(AudioFormat("pcm16", 16_000)), pcm.tobytes(), step)
        assert heard.tolist() == pcm.tolist()


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 24_000, 44_100, 48_000])
def test_other_rates_are_resampled_as_in_one_piece(rate_hz: int) -> None:
    pcm = demo_recording()[:48_000]
    sent = soxr.resample(pcm, 16_000, rate_hz).astype(np.int16)
    audio = AudioFormat("pcm16", rate_hz)
    whole = _all_of(AudioInput(audio), sent.tobytes(), len(sent) * 2)
    divided = _all_of(AudioInput(audio), sent.tobytes(), 333)
    assert divided.tolist() == whole.tolist()
    assert abs(len(whole) - len(pcm)) <= 2
    # Above half of the lower rate nothing is left to compare.
    low_hz = min(rate_hz, 16_000)
    reference = soxr.resample(soxr.resample(pcm, 16_000, low_hz), low_hz, 16_000)
    num = min(len(whole), len(reference))
    error = whole[:num].astype(float) - reference[:num].astype(float)
    assert np.sqrt(np.mean(error**2)) < 0.02 * np.sqrt(np.mean(pcm.astype(float) ** 2))


def test_after_a_flush_audio_starts_anew() -> None:
    source = AudioInput(AudioFormat("pcm16", 8_000))
    tone = (np.sin(np.arange(8_000) / 5) * 9000).astype(np.int16).tobytes()
    first = np.concatenate([source.push(tone), source.flush()])
    second = np.concatenate([source.push(tone), source.flush()])
    assert first.tolist() == second.tolist()
    assert len(source.flush()) == 0


@pytest.mark.parametrize("rate_hz", [7_999, 48_001, 0])
def test_unsupported_rates_are_refused(rate_hz: int) -> None:
    with pytest.raises(UnsupportedAudioLayout, match="8000 to 48000"):
        AudioInput(AudioFormat("pcm16", rate_hz))


@given(data=st.binary(max_size=400), at=st.integers(0, 400))
def test_any_bytes_are_audio(data: bytes, at: int) -> None:
    source = AudioInput(AudioFormat("pcm16", 16_000))
    heard = np.concatenate([source.push(data[:at]), source.push(data[at:])])
    assert heard.tobytes() == data[: len(data) // 2 * 2]


def test_durations_and_bytes_of_each_format() -> None:
    assert num_bytes_of(AudioFormat("pcm16", 24_000), 100) == 4800
    assert num_bytes_of(AudioFormat("mulaw", 8_000), 100) == 800
    assert duration_ms_of(AudioFormat("pcm16", 24_000), 4801) == 100
