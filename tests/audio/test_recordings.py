"""Recordings as people really have them: odd, damaged and joined."""

from __future__ import annotations

import functools
import io
import itertools
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import soxr
from av.audio.stream import AudioStream

from serve_app.audio import AudioDecoder, AudioLimits
from serve_app.audio.flac_frames import frames_of
from serve_app.core.records import SAMPLE_RATE_HZ, DamagedRange, Pcm
from tests.audio import recordings
from tests.audio.recordings import Signal

_DEMO = Path(__file__).parents[2] / "serve_app" / "packs" / "builtin" / "samples" / "demo.flac"
_SECONDS = 8.0


@functools.cache
def speech(rate_hz: int = 16_000) -> Signal:
    stored, stored_hz = soundfile.read(_DEMO, dtype="float32")
    cut = np.asarray(stored[: int(_SECONDS * stored_hz)], np.float32)
    return np.asarray(soxr.resample(cut, stored_hz, rate_hz), np.float32)


class Decoded:
    """All that comes out of a file."""

    def __init__(self, file: bytes, limits: AudioLimits | None = None) -> None:
        with AudioDecoder(file, limits or AudioLimits()) as decoder:
            self.pcm: Pcm = np.concatenate(list(decoder.blocks()))
            self.damage: tuple[DamagedRange, ...] = decoder.damage
            self.notices = decoder.notices

    @property
    def duration_s(self) -> float:
        return len(self.pcm) / SAMPLE_RATE_HZ


def likeness(original: Signal, pcm: Pcm, start_s: float, end_s: float, later_s: float = 0) -> float:
    """Correlation of a stretch with the samples that are so much later, give or take 90 ms.

    Raw AAC begins with 64 ms that the encoder put there.
    """
    first, last = int(start_s * 16_000), int(end_s * 16_000)
    piece = original[first:last].astype(np.float64)
    shift = int(later_s * 16_000)
    best = 0.0
    there = pcm.astype(np.float64)
    region = there[max(first + shift - 1440, 0) : last + shift + 1440]
    if len(region) < len(piece):
        return best
    products = np.correlate(region, piece, "valid")
    sums = np.concatenate([[0.0], np.cumsum(region**2)])
    powers = sums[len(piece) :] - sums[: -len(piece)]
    return float((products / np.sqrt(powers * (piece @ piece) + 1e-9)).max())


def overwritten(file: bytes, start: int, content: bytes) -> bytes:
    return file[:start] + content + file[start + len(content) :]


def compressed(name: str) -> bytes:
    rate_hz = recordings.COMPRESSED[name][2] or 16_000
    return recordings.encode(name, speech(rate_hz), rate_hz)


@pytest.mark.parametrize("name", ["wav", "rf64", "w64", "aiff", *recordings.COMPRESSED])
def test_of_a_sound_file_nothing_is_reported(name: str) -> None:
    rate_hz = recordings.COMPRESSED.get(name, ("", "", 0))[2] or 16_000

    decoded = Decoded(recordings.encode(name, speech(rate_hz), rate_hz))

    assert not decoded.damage
    assert not decoded.notices


# Damage in the middle


@pytest.mark.parametrize(
    "name", ["mp3", "aac", "ogg", "webm", "matroska", "flac", "mpegts", "flv", "amr", "asf"]
)
@pytest.mark.parametrize("content", [bytes(1500), b"\xff" * 700, b"\x5a" * 64])
def test_damage_in_the_middle_loses_only_the_damaged_part(name: str, content: bytes) -> None:
    file = compressed(name)

    decoded = Decoded(overwritten(file, len(file) // 2, content))

    assert decoded.duration_s == pytest.approx(_SECONDS, abs=0.2)
    least = 0.8 if name == "amr" else 0.95
    assert likeness(speech(), decoded.pcm, 0.5, 2.5) > least
    assert likeness(speech(), decoded.pcm, 5.8, 7.5) > least


@pytest.mark.parametrize("name", ["mp3", "aac", "ogg", "webm", "flac", "mpegts", "flv", "amr"])
def test_overwritten_audio_is_reported(name: str) -> None:
    file = compressed(name)
    content = np.random.default_rng(1).bytes(2000 if name == "amr" else 6000)

    decoded = Decoded(overwritten(file, len(file) // 2, content))

    assert decoded.damage
    assert 2_500 < decoded.damage[0].start_ms < decoded.damage[-1].end_ms < 6_500


@pytest.mark.parametrize("start", [1_500, 2_400, 4_000])
def test_loss_near_the_start_of_an_mp3_keeps_the_length(start: int) -> None:
    decoded = Decoded(overwritten(compressed("mp3"), start, bytes(6_600)))

    assert decoded.duration_s == pytest.approx(_SECONDS, abs=0.1)
    assert likeness(speech(), decoded.pcm, 2.0, 7.5) > 0.95


def test_a_changed_bit_of_flac_loses_nothing_before_it() -> None:
    file = compressed("flac")
    sound = Decoded(file).pcm.astype(np.int32)
    start = file.index(b"\xff\xf8")
    num_heard = 0
    for ends in itertools.islice(itertools.accumulate(flac_lengths(file[start:])), 3, 90, 8):
        changed = bytearray(file)
        changed[start + ends - 20] ^= 16

        decoded = Decoded(bytes(changed))

        assert decoded.duration_s == pytest.approx(_SECONDS, abs=0.001)
        [lost] = decoded.damage
        assert lost.end_ms - lost.start_ms <= 73
        same = np.abs(decoded.pcm - sound) < 10
        assert same[lost.end_ms * 16 :].all()
        num_heard += bool(same[: (lost.end_ms - 5) * 16].all())
    # Of 11; a frame that became far too loud is silence.
    assert num_heard >= 9


def flac_lengths(frames: bytes) -> list[int]:
    return [len(frame.content) for frame in frames_of(frames)]


def test_bytes_lost_from_an_mp3_cost_a_frame() -> None:
    file = compressed("mp3")
    at = len(file) // 2

    decoded = Decoded(file[:at] + file[at + 50 :])

    assert decoded.duration_s == pytest.approx(_SECONDS, abs=0.15)
    assert len(decoded.damage) == 1
    assert decoded.damage[0].end_ms - decoded.damage[0].start_ms < 150


def test_one_changed_byte_of_a_frame_header_loses_one_frame() -> None:
    file = compressed("mp3")
    at = file.index(b"\xff\xf3", len(file) // 2)

    decoded = Decoded(overwritten(file, at, b"\0"))

    assert len(decoded.damage) == 1
    assert decoded.damage[0].end_ms - decoded.damage[0].start_ms < 80


def test_an_appended_mp3_with_its_own_tag_is_decoded_to_the_end() -> None:
    tag = b"ID3\x04\x00\x00\x00\x00\x20\x00" + b"\xff\xfb\x90\x64" * 1024

    decoded = Decoded(compressed("mp3") + tag + compressed("mp3"))

    assert decoded.duration_s == pytest.approx(2 * _SECONDS, abs=0.3)
    assert likeness(speech(), decoded.pcm, 1.0, 7.0, later_s=_SECONDS + 0.1) > 0.95
    # The tag is full of what looks like frames; one of them may swallow a true one.
    assert sum(one.end_ms - one.start_ms for one in decoded.damage) < 100


def test_appended_mp3s_of_different_rates_are_decoded_to_the_end() -> None:
    first = recordings.encode("mp3", speech(24_000), 24_000)
    second = recordings.encode("mp3", speech(44_100), 44_100)

    decoded = Decoded(first + second)

    assert decoded.duration_s == pytest.approx(2 * _SECONDS, abs=0.3)


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1), (1, 6)])
def test_chained_ogg_of_another_layout_is_decoded_to_the_end(first: int, second: int) -> None:
    def stream(channels: int) -> bytes:
        signal = np.repeat(speech(48_000)[:, None], channels, 1) if channels > 1 else speech(48_000)
        return recordings.encode("ogg", signal, 48_000)

    decoded = Decoded(stream(first) + stream(second))

    assert decoded.duration_s == pytest.approx(2 * _SECONDS, abs=0.1)
    assert likeness(speech(), decoded.pcm, 1.0, 7.0, later_s=_SECONDS) > 0.9
    assert not decoded.damage


def test_chained_ogg_of_another_codec_is_decoded_to_the_end() -> None:
    flac = recordings.mux("ogg", "flac", speech(), 16_000)

    decoded = Decoded(compressed("ogg") + flac)

    assert decoded.duration_s == pytest.approx(2 * _SECONDS, abs=0.1)


def test_lost_pages_of_ogg_are_silence_and_reported() -> None:
    file = compressed("ogg")
    pages = [at for at in range(len(file)) if file.startswith(b"OggS", at)]

    decoded = Decoded(file[: pages[4]] + file[pages[7] :])

    assert decoded.duration_s == pytest.approx(_SECONDS, abs=0.05)
    [lost] = decoded.damage
    assert lost.end_ms - lost.start_ms > 2_000
    assert likeness(speech(), decoded.pcm, lost.end_ms / 1000 + 0.2, 7.5) > 0.95


def test_a_lost_beginning_is_silence_and_reported() -> None:
    file = compressed("ogg")
    pages = [at for at in range(len(file)) if file.startswith(b"OggS", at)]

    # The first two pages are headers.
    decoded = Decoded(overwritten(file, pages[2] + 100, bytes(500)))

    assert likeness(speech(), decoded.pcm, 2.0, 7.5) > 0.9
    assert decoded.damage[0].start_ms == 0
    assert decoded.damage[0].end_ms > 500


@pytest.mark.parametrize("kept", [0.4, 0.77])
def test_a_cut_off_fragmented_mp4_is_decoded(kept: float) -> None:
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "1000000"}
    file = recordings.mux("mp4", "aac", speech(), 16_000, options=options)

    decoded = Decoded(file[: int(len(file) * kept)])

    assert decoded.duration_s == pytest.approx(_SECONDS * kept, abs=1.1)


# Times


def _remuxed(muxer: str, pause_s: float, late_s: float = 0.0, video: bool = False) -> bytes:
    """AAC with a pause half-way, or that begins later than the pictures beside it."""
    file = io.BytesIO()
    with av.open(file, "w", format=muxer) as container:
        stream = container.add_stream("aac", rate=16_000)
        assert isinstance(stream, AudioStream)
        stream.layout = "mono"
        pictures = container.add_stream("mpeg4", rate=1) if video else None
        if pictures is not None:
            pictures.width = pictures.height = 64
            pictures.pix_fmt = "yuv420p"
            for second in range(int(_SECONDS + late_s)):
                picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
                picture.pts, picture.time_base = second, Fraction(1, 1)
                container.mux(pictures.encode(picture))
        signal = speech()
        for start in range(0, len(signal), 1024):
            part = np.ascontiguousarray(signal[None, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, start
            frame.time_base = Fraction(1, 16_000)
            for packet in stream.encode(frame):
                assert packet.pts is not None
                shift_s = late_s + (pause_s if start >= len(signal) // 2 else 0)
                packet.pts = packet.dts = packet.pts + round(shift_s * 16_000)
                container.mux(packet)
        container.mux(stream.encode(None)) if not pause_s and not late_s else None
    return file.getvalue()


@pytest.mark.parametrize("muxer", ["mpegts", "flv", "matroska", "mp4"])
def test_a_gap_in_the_times_is_silence_and_said(muxer: str) -> None:
    decoded = Decoded(_remuxed(muxer, pause_s=4.8))

    assert likeness(speech(), decoded.pcm, 5.0, 7.3, later_s=4.8) > 0.95
    assert not decoded.damage
    assert any("has no audio from" in notice for notice in decoded.notices)


@pytest.mark.parametrize("muxer", ["mpegts", "matroska", "mp4"])
def test_audio_that_begins_after_the_pictures_keeps_its_time(muxer: str) -> None:
    decoded = Decoded(_remuxed(muxer, 0.0, late_s=4.0, video=True))

    assert likeness(speech(), decoded.pcm, 1.0, 7.0, later_s=4.0) > 0.95


def test_one_wrong_time_stamp_moves_nothing() -> None:
    file = bytearray(_remuxed("flv", 0.0))
    tag = file.index(b"\x08", len(file) // 2)
    while file[tag + 8 : tag + 11] != bytes(3) or file[tag] != 8:
        tag = file.index(b"\x08", tag + 1)
    file[tag + 7] = 0x05

    decoded = Decoded(bytes(file))

    assert decoded.duration_s == pytest.approx(_SECONDS, abs=0.2)
    assert likeness(speech(), decoded.pcm, 5.0, 7.3) > 0.95


# WAV


def wav(signal: Signal | None = None, subtype: str = "PCM_16") -> bytes:
    return recordings.encode("wav", speech() if signal is None else signal, 16_000, subtype)


def with_data_size(file: bytes, num_bytes: int) -> bytes:
    at = file.index(b"data") + 4
    return file[:at] + struct.pack("<I", num_bytes) + file[at + 4 :]


@pytest.mark.parametrize(
    "num_bytes",
    [0, 0x7FFF_0000, 0x7FFF_F000, 0x7FFF_F024, 0x7FFF_FF00, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF],
)
def test_a_wav_from_a_pipe_is_read_to_its_end(num_bytes: int) -> None:
    decoded = Decoded(with_data_size(wav(), num_bytes))

    assert decoded.duration_s == _SECONDS
    assert not decoded.damage
    assert not decoded.notices


def test_a_size_that_no_recording_has_is_not_believed() -> None:
    decoded = Decoded(with_data_size(wav(), 0x6000_0000))

    assert decoded.duration_s == _SECONDS
    assert not decoded.damage


@pytest.mark.parametrize("num_bytes", [2, 32_000, 100_001])
def test_a_size_that_is_too_small_is_not_believed_and_said(num_bytes: int) -> None:
    decoded = Decoded(with_data_size(wav(), num_bytes))

    assert decoded.duration_s == _SECONDS
    assert decoded.notices == (
        "The header of the file declares less audio than the file holds; all of it was read.",
    )


def test_chunks_after_the_samples_are_not_read_as_samples() -> None:
    trailer = b"LIST" + struct.pack("<I", 26) + b"INFOISFT\x0e\0\0\0Lavf59.27.100\0"

    decoded = Decoded(wav() + trailer + b"odd " + struct.pack("<I", 4000) + bytes(4000))

    assert decoded.duration_s == _SECONDS
    assert not decoded.notices


def test_foreign_bytes_after_the_samples_are_ignored_and_said() -> None:
    decoded = Decoded(wav() + np.random.default_rng(0).bytes(9000))

    assert decoded.duration_s == _SECONDS
    assert decoded.notices == (
        "The bytes after the audio of the file are not audio; they were ignored.",
    )


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("num_bytes", [1, 17, 4001])
def test_a_chunk_of_odd_length_may_lack_its_pad_byte(num_bytes: int, padded: bool) -> None:
    file = wav()
    at = file.index(b"data")
    chunk = b"LIST" + struct.pack("<I", num_bytes) + b"a" * num_bytes + bytes(padded)

    assert Decoded(file[:at] + chunk + file[at:]).duration_s == _SECONDS


def test_a_chunk_whose_length_is_wrong_does_not_hide_the_samples() -> None:
    file = wav()
    at = file.index(b"data")
    chunk = b"LIST" + struct.pack("<I", 0xFFFF_FFF0) + bytes(40)

    assert Decoded(file[:at] + chunk + file[at:]).duration_s == _SECONDS


def test_a_byte_order_mark_before_the_file_is_skipped() -> None:
    assert Decoded(b"\xef\xbb\xbf" + wav()).duration_s == _SECONDS


@pytest.mark.parametrize(("bits", "tag"), [(16, 1), (24, 1), (32, 1), (32, 3), (64, 3)])
def test_a_big_endian_wav_is_read(bits: int, tag: int) -> None:
    scaled = speech()
    if tag == 3:
        samples = scaled.astype(f">f{bits // 8}").tobytes()
    else:
        words = np.clip(scaled.astype(np.float64) * 2**31, -(2**31), 2**31 - 1).astype(">i4")
        samples = words.view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes()
    body = struct.pack(">HHIIHH", tag, 1, 16_000, 2000 * bits, bits // 8, bits)
    chunks = b"fmt " + struct.pack(">I", 16) + body + b"data" + struct.pack(">I", len(samples))
    file = b"RIFX" + struct.pack(">I", 4 + len(chunks) + len(samples)) + b"WAVE" + chunks + samples

    decoded = Decoded(file)

    assert decoded.duration_s == _SECONDS
    assert likeness(speech(), decoded.pcm, 1.0, 7.0) > 0.99


@pytest.mark.parametrize(
    ("codec", "rate_hz"), [("g722", 16_000), ("g726", 8_000), ("adpcm_ima_wav", 16_000)]
)
def test_telephone_codecs_in_wav_are_decoded(codec: str, rate_hz: int) -> None:
    decoded = Decoded(recordings.mux("wav", codec, speech(rate_hz), rate_hz))

    assert decoded.duration_s == pytest.approx(_SECONDS, abs=0.1)
    assert likeness(speech(), decoded.pcm, 1.0, 7.0) > 0.9
    assert not decoded.damage


def test_a_compressed_wav_may_be_as_odd_as_any() -> None:
    file = recordings.mux("wav", "g722", speech(), 16_000)
    at = file.index(b"data")
    odd = file[:at] + b"LIST" + struct.pack("<I", 5) + b"aaaaa" + file[at:]

    assert Decoded(with_data_size(odd, 0xFFFF_FFFF)).duration_s == pytest.approx(8.0, abs=0.1)


def test_joined_wavs_follow_each_other() -> None:
    decoded = Decoded(wav() + recordings.encode("wav", speech(8_000), 8_000))

    assert decoded.duration_s == pytest.approx(2 * _SECONDS, abs=0.01)
    assert likeness(speech(), decoded.pcm, 1.0, 7.0, later_s=_SECONDS) > 0.9


# Tracks and channels


def _two_tracks(first: Signal, second: Signal, default: int | None, muxer: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=muxer) as container:
        streams = []
        for number in range(2):
            stream = container.add_stream("aac", rate=16_000)
            assert isinstance(stream, AudioStream)
            stream.layout = "mono"
            if default is not None:
                stream.disposition = av.stream.Disposition(int(number == default))
            streams.append(stream)
        for start in range(0, len(first), 1024):
            for stream, signal in zip(streams, (first, second), strict=True):
                part = np.ascontiguousarray(signal[None, start : start + 1024])
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16_000, start
                frame.time_base = Fraction(1, 16_000)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("muxer", ["matroska", "mp4", "mpegts"])
def test_of_several_tracks_the_loud_one_is_taken_and_named(muxer: str) -> None:
    silence = np.zeros_like(speech())

    decoded = Decoded(_two_tracks(silence, speech(), None, muxer))

    assert likeness(speech(), decoded.pcm, 1.0, 7.0) > 0.95
    assert any("2 audio tracks; track 2" in notice for notice in decoded.notices)


def test_the_default_track_is_taken_though_another_is_louder() -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, len(speech())).astype(np.float32)

    decoded = Decoded(_two_tracks(noise, speech(), 1, "matroska"))

    assert likeness(speech(), decoded.pcm, 1.0, 7.0) > 0.95


@pytest.mark.parametrize("name", ["flac", "wav", "mp3", "webm"])
@pytest.mark.parametrize("right", [-1.0, -0.8])
def test_channels_that_cancel_each_other_are_not_silent(name: str, right: float) -> None:
    rate_hz = recordings.COMPRESSED.get(name, ("", "", 0))[2] or 16_000
    stereo = np.stack([speech(rate_hz), np.float32(right) * speech(rate_hz)], axis=1)

    decoded = Decoded(recordings.encode(name, stereo, rate_hz))

    assert likeness(speech(), np.abs(decoded.pcm), 0.0, 0.1) >= 0
    either = max(likeness(sign * speech(), decoded.pcm, 1.0, 7.0) for sign in (1, -1))
    assert either > 0.95
    assert any("cancel each other" in notice for notice in decoded.notices)


def test_ordinary_stereo_is_still_mixed() -> None:
    left = speech().copy()
    right = np.roll(speech(), 1600)
    stereo: npt.NDArray[np.float32] = np.stack([left, right], axis=1)

    decoded = Decoded(recordings.encode("wav", stereo, 16_000))

    assert np.abs(decoded.pcm - np.rint((left + right) * 16384)).max() <= 1
    assert not decoded.notices
