"""Work is bounded by what is done, not by the audio that it gains."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream

from serve_app.audio import AudioDecoder, AudioLimits
from serve_app.audio.durations import estimate_duration
from serve_app.audio.work import WorkBudget, WorkMeter
from serve_app.core.errors import AudioError, AudioTooComplex
from tests.audio import recordings

_FORMAT = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
_NOTHING = b"junk\0\0\0\0" * 300_000
_SECOND = b"data" + struct.pack("<I", 32_000) + bytes(32_000)
_MANY_CHUNKS = {
    "nothing but chunks": b"RIFF\0\0\0\0WAVE" + _NOTHING,
    "chunks before the samples": b"RIFF\0\0\0\0WAVE" + _FORMAT + _NOTHING + _SECOND,
    "chunks after the samples": b"RIFF\0\0\0\0WAVE" + _FORMAT + _SECOND + _NOTHING,
    "aiff": b"FORM\0\0\0\0AIFC" + _NOTHING,
    "rf64": b"RF64\xff\xff\xff\xffWAVE" + _NOTHING,
    "mp3": b"\xff\xfb\x90\x64" + b"\xff" * 2_000_000,
}


class CountedFile(io.BytesIO):
    num_reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.num_reads += 1
        return super().read(size)


def tiny_packets(num_packets: int) -> bytes:
    """A Matroska file with one sample in each block."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000)
        assert isinstance(stream, AudioStream)
        stream.layout = "mono"
        for number in range(num_packets):
            packet = av.Packet(b"\1\2")
            packet.stream = stream
            packet.pts = packet.dts = number
            packet.time_base = Fraction(1, 16_000)
            container.mux(packet)
    return file.getvalue()


@pytest.mark.parametrize("name", sorted(_MANY_CHUNKS))
def test_empty_chunks_are_not_walked_through(name: str) -> None:
    file = CountedFile(_MANY_CHUNKS[name])

    try:
        with AudioDecoder(file, AudioLimits()) as decoder:
            assert sum(len(window) for window in decoder.windows()) == 16_000
    except AudioError:
        pass
    estimate_duration(file)

    assert file.num_reads < 20_000


def test_a_step_ends_with_its_slice_though_no_window_is_full() -> None:
    decoder = AudioDecoder(tiny_packets(2000), AudioLimits(), WorkBudget(slice_s=0.0))

    with decoder:
        steps = [len(step) for step in decoder.steps()]

    assert steps.count(0) > 1000
    assert sum(steps) == 2000


def test_a_file_of_tiny_packets_exceeds_its_budget() -> None:
    budget = WorkBudget(base_s=0.0, per_audio_s=0.0, per_mb_s=0.0)

    with (
        pytest.raises(AudioTooComplex, match="far more pieces"),
        AudioDecoder(tiny_packets(2000), AudioLimits(), budget) as decoder,
    ):
        list(decoder.windows())


def test_a_library_call_that_takes_too_long_finds_no_more_bytes() -> None:
    file = recordings.encode("matroska", recordings.sine(20.0, 16_000), 16_000)

    with pytest.raises(AudioTooComplex):
        AudioDecoder(file, AudioLimits(), WorkBudget(call_s=0.0))


@pytest.mark.parametrize("name", ["wav", *recordings.COMPRESSED])
def test_an_ordinary_recording_stays_far_below_its_budget(name: str) -> None:
    rate_hz = recordings.COMPRESSED.get(name, ("", "", 0))[2] or 16_000
    noise = np.random.default_rng(0).normal(0, 0.1, 30 * rate_hz).astype(np.float32)

    with AudioDecoder(recordings.encode(name, noise, rate_hz), AudioLimits()) as decoder:
        assert sum(len(window) for window in decoder.windows()) > 29 * 16_000


def test_opening_pauses_while_it_walks_through_boxes() -> None:
    file = b"\0\0\0\x14ftypisom\0\0\0\0isom" + struct.pack(">I4s", 8, b"free") * 20_000
    decoder = AudioDecoder(file, AudioLimits(), WorkBudget(slice_s=0.0), open_at_once=False)
    opening = decoder.opening()

    for _ in range(10):
        next(opening)


def test_time_between_slices_is_not_counted() -> None:
    now = [0.0]
    meter = WorkMeter(1_000_000, WorkBudget(base_s=1.0, per_mb_s=1.0), lambda: now[0])
    meter.resume()
    now[0] = 0.04
    assert not meter.slice_is_over
    meter.pause()
    # Another thread's clock may stand anywhere.
    now[0] = 1000.0
    meter.resume()
    now[0] = 1000.06
    assert meter.slice_is_over
    assert meter.spent_s == pytest.approx(0.1)
    meter.check(0.0)
    now[0] = 1002.5
    with pytest.raises(AudioTooComplex):
        meter.check(0.0)
    meter.check(10.0)


def test_a_library_call_may_take_three_seconds() -> None:
    now = [0.0]
    meter = WorkMeter(100_000_000, WorkBudget(), lambda: now[0])
    meter.resume()
    meter.begin_call()
    now[0] = 2.9
    assert not meter.call_is_over()
    now[0] = 3.1
    assert meter.call_is_over()
