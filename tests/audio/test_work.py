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
from serve_app.core.errors import AudioError, AudioTooComplex, AudioTooFragmented
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


def tiny_packets(num_packets: int, container_name: str = "matroska") -> bytes:
    """A file with one sample in each packet."""
    file = io.BytesIO()
    with av.open(file, "w", format=container_name) as container:
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


def laced_samples(num_blocks: int) -> bytes:
    """Matroska with 255 laced packets of one sample in each block."""
    lace = bytes((0x81, 0, 0, 0x84, 254)) + b"\1\2" * 255
    block = b"\xa3" + struct.pack(">H", 0x4000 | len(lace)) + lace
    cluster = b"\x1f\x43\xb6\x75\x01" + b"\xff" * 7 + b"\xe7\x81\x01"
    return tiny_packets(1) + cluster + block * num_blocks


def joined_samples(num_files: int) -> bytes:
    """WAV files of one sample, joined."""
    return (b"RIFF\x2e\0\0\0WAVE" + _FORMAT + b"data\2\0\0\0\1\2") * num_files


def adpcm_of_tiny_blocks(num_blocks: int) -> bytes:
    """IMA ADPCM whose blocks hold nothing but their own header, which is one sample."""
    fields = struct.pack("<HHIIHHHH", 0x11, 1, 8000, 32_000, 4, 4, 2, 1)
    body = bytes(4 * num_blocks)
    return (
        b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<I", 20) + fields
        + b"data" + struct.pack("<I", len(body)) + body
    )  # fmt: skip


def mp4_of_single_samples(num_samples: int) -> bytes:
    """G.711 in MP4, each sample a packet of its own by two kinds of durations."""

    def box(name: bytes, *content: bytes) -> bytes:
        body = b"".join(content)
        return struct.pack(">I4s", 8 + len(body), name) + body

    def table(name: bytes, *numbers: int) -> bytes:
        return box(name, bytes(4), struct.pack(f">{len(numbers)}I", *numbers))

    start = box(b"ftyp", b"isom\0\0\0\0isom")
    entry = box(b"alaw", bytes(6), struct.pack(">HQHHII", 1, 0, 1, 16, 0, 8000 << 16))
    tables = box(
        b"stbl",
        box(b"stsd", bytes(4), struct.pack(">I", 1), entry),
        table(b"stts", 2, num_samples - 1, 1, 1, 2),
        table(b"stsc", 1, 1, num_samples, 1),
        table(b"stsz", 0, num_samples, *[1] * num_samples),
        table(b"stco", 1, len(start) + 8),
    )
    media = box(
        b"mdia",
        table(b"mdhd", 0, 0, 8000, num_samples, 0x55C4_0000),
        box(b"hdlr", bytes(8), b"soun", bytes(13)),
        box(b"minf", box(b"smhd", bytes(8)), tables),
    )
    movie = box(b"moov", table(b"mvhd", 0, 0, 8000, num_samples, *[0] * 20), box(b"trak", media))
    return start + box(b"mdat", bytes(num_samples)) + movie


_FRAGMENTED = {
    "matroska": lambda: tiny_packets(10_000),
    "laces": lambda: laced_samples(100),
    "avi": lambda: tiny_packets(10_000, "avi"),
    "joined files": lambda: joined_samples(5000),
    "adpcm": lambda: adpcm_of_tiny_blocks(20_000),
    "mp4": lambda: mp4_of_single_samples(20_000),
}


@pytest.mark.parametrize("name", sorted(_FRAGMENTED))
def test_audio_in_single_samples_is_refused_after_a_few(name: str) -> None:
    with (
        AudioDecoder(_FRAGMENTED[name](), AudioLimits()) as decoder,
        pytest.raises(AudioTooFragmented) as refusal,
    ):
        list(decoder.blocks())

    assert int(str(refusal.value.args[0])) < 1500


def test_opus_with_the_shortest_packets_is_accepted() -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, (1, 20 * 48_000)).astype(np.float32)
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=48_000, options={"frame_duration": "2.5"})
        assert isinstance(stream, AudioStream)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(sound, "flt", "mono")
        frame.rate = 48_000
        container.mux([*stream.encode(frame), *stream.encode(None)])

    with AudioDecoder(file.getvalue(), AudioLimits()) as decoder:
        assert sum(len(block) for block in decoder.blocks()) > 19.9 * 16_000


def test_pieces_are_counted_against_the_audio() -> None:
    budget = WorkBudget(base_pieces=2, pieces_per_audio_s=10)
    meter = WorkMeter(0, budget, lambda: 0.0)
    for _ in range(12):
        meter.count_piece()

    meter.check(1.0)
    with pytest.raises(AudioTooFragmented):
        meter.check(0.9)


def test_work_is_unusual_until_audio_makes_up_for_it() -> None:
    now = [0.0]
    budget = WorkBudget(usual_base_s=0.02, usual_per_audio_s=0.05)
    meter = WorkMeter(0, budget, lambda: now[0])
    meter.resume()
    now[0] = 0.019
    assert meter.is_usual(0.0)
    now[0] = 0.1
    meter.pause()
    assert not meter.is_usual(1.0)
    assert meter.is_usual(2.0)


@pytest.mark.parametrize("name", sorted(_MANY_CHUNKS))
def test_empty_chunks_are_not_walked_through(name: str) -> None:
    file = CountedFile(_MANY_CHUNKS[name])

    try:
        with AudioDecoder(file, AudioLimits()) as decoder:
            assert sum(len(block) for block in decoder.blocks()) == 16_000
    except AudioError:
        pass
    estimate_duration(file)

    assert file.num_reads < 20_000


def test_a_step_ends_with_its_slice_though_no_block_is_full() -> None:
    budget = WorkBudget(slice_s=0.0, base_pieces=2000)
    decoder = AudioDecoder(tiny_packets(2000), AudioLimits(), budget)

    with decoder:
        steps = [step.shape[1] for step in decoder.steps()]

    assert steps.count(0) > 1000
    assert sum(steps) == 2000


def test_a_file_of_tiny_packets_exceeds_its_budget() -> None:
    budget = WorkBudget(base_s=0.0, per_audio_s=0.0, per_mb_s=0.0, base_pieces=2000)

    with (
        pytest.raises(AudioTooComplex, match="far more pieces"),
        AudioDecoder(tiny_packets(2000), AudioLimits(), budget) as decoder,
    ):
        list(decoder.blocks())


def test_a_library_call_that_takes_too_long_reads_the_end_of_the_file() -> None:
    file = recordings.encode("matroska", recordings.sine(20.0, 16_000), 16_000)

    with pytest.raises(AudioTooComplex):
        AudioDecoder(file, AudioLimits(), WorkBudget(call_s=0.0))


@pytest.mark.parametrize("name", ["wav", *recordings.COMPRESSED])
def test_an_ordinary_recording_stays_far_below_its_budget(name: str) -> None:
    rate_hz = recordings.COMPRESSED.get(name, ("", "", 0))[2] or 16_000
    noise = np.random.default_rng(0).normal(0, 0.1, 30 * rate_hz).astype(np.float32)

    with AudioDecoder(recordings.encode(name, noise, rate_hz), AudioLimits()) as decoder:
        assert sum(len(block) for block in decoder.blocks()) > 29 * 16_000


def test_opening_pauses_while_it_walks_through_boxes() -> None:
    file = b"\0\0\0\x14ftypisom\0\0\0\0isom" + struct.pack(">I4s", 8, b"free") * 20_000
    decoder = AudioDecoder(file, AudioLimits(), WorkBudget(slice_s=0.0), open_at_once=False)
    opening = decoder.opening()

    for _ in range(10):
        next(opening)


def test_time_between_slices_is_not_counted() -> None:
    now = [0.0]
    budget = WorkBudget(slice_s=0.05, base_s=1.0, per_mb_s=1.0)
    meter = WorkMeter(1_000_000, budget, lambda: now[0])
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


def test_a_library_call_may_take_a_second() -> None:
    now = [0.0]
    meter = WorkMeter(100_000_000, WorkBudget(), lambda: now[0])
    meter.resume()
    meter.begin_call()
    now[0] = 0.9
    assert not meter.call_is_over()
    now[0] = 1.1
    assert meter.call_is_over()
