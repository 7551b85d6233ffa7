"""The length of a recording from its headers, beside its true one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.audio.durations import estimate_duration
from tests.audio.recordings import COMPRESSED, encode, mux, sine
from tests.fakes.mutated_audio import mutate

SECONDS = 24.0
DECLARED = {"wav", "rf64", "w64", "aiff", "flac", "ogg", "mp4", "webm", "matroska", "asf"}
DECLARED |= {"au", "caf"}
EVERY = DECLARED | set(COMPRESSED)
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "1000000"}


def recording(container: str, seconds: float = SECONDS) -> bytes:
    rate_hz = COMPRESSED.get(container, ("", "", 16_000))[2] or 16_000
    return encode(container, sine(seconds, rate_hz), rate_hz)


@pytest.mark.parametrize("container", sorted(DECLARED))
def test_declared_length_is_read(container: str) -> None:
    estimate = estimate_duration(recording(container))
    assert estimate.declared
    assert estimate.duration_s == pytest.approx(SECONDS, abs=0.15)


@pytest.mark.parametrize("container", sorted(EVERY - DECLARED))
def test_length_is_reckoned_where_no_header_has_it(container: str) -> None:
    estimate = estimate_duration(recording(container))
    assert not estimate.declared
    assert estimate.duration_s == pytest.approx(SECONDS, rel=0.15)


@pytest.mark.parametrize(
    ("muxer", "codec", "rate_hz"),
    [
        ("au", "pcm_mulaw", 8_000),
        ("au", "pcm_f32be", 16_000),
        ("caf", "alac", 44_100),
        ("avi", "pcm_s16le", 16_000),
        ("avi", "ac3", 48_000),
        ("asf", "libmp3lame", 16_000),
        ("mpegts", "mp2", 48_000),
        ("mpegts", "ac3", 48_000),
        ("flv", "libmp3lame", 44_100),
        ("matroska", "pcm_s16le", 16_000),
        ("ogg", "flac", 16_000),
        ("wav", "adpcm_ms", 16_000),
    ],
)
def test_codecs_do_not_mislead_it(muxer: str, codec: str, rate_hz: int) -> None:
    file = mux(muxer, codec, sine(SECONDS, rate_hz), rate_hz)

    assert SECONDS * 0.8 < estimate_duration(file).duration_s < SECONDS * 1.25


@pytest.mark.parametrize(
    ("muxer", "codec", "options"),
    [
        ("mp4", "aac", FRAGMENTS),
        ("mov", "aac", FRAGMENTS),
        ("webm", "libopus", {"live": "1"}),
        ("matroska", "libmp3lame", {"live": "1"}),
        ("flv", "aac", {"flvflags": "no_duration_filesize"}),
    ],
)
def test_a_live_recording_is_within_a_factor_of_two(
    muxer: str, codec: str, options: dict[str, str]
) -> None:
    file = mux(muxer, codec, sine(SECONDS, 48_000), 48_000, options=options)

    assert SECONDS / 2 < estimate_duration(file).duration_s < SECONDS * 2


@pytest.mark.parametrize("container", ["flv", "mpegts", "webm", "mp3", "aac", "au"])
def test_a_recording_that_was_cut_off_is_within_a_factor_of_two(container: str) -> None:
    file = recording(container)

    estimated_s = estimate_duration(file[: len(file) * 2 // 3]).duration_s

    assert SECONDS / 3 < estimated_s < SECONDS * 1.34


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts", "flv", "avi", "asf"])
def test_video_beside_the_audio_does_not_mislead_it(container: str) -> None:
    muxer, codec, _ = COMPRESSED[container] if container != "mp4" else ("mp4", "aac", 0)
    file = mux(muxer, codec, sine(SECONDS, 16_000), 16_000, video=container != "flv")

    assert SECONDS / 2 < estimate_duration(file).duration_s < SECONDS * 2


def test_bytes_that_are_not_audio_are_limited_too() -> None:
    assert estimate_duration(b"nothing of the kind" * 100).duration_s > 0
    assert estimate_duration(np.zeros(0, np.uint8)).duration_s == 0


def test_bomb_is_detected_by_its_declared_size() -> None:
    flac = bytearray(recording("flac"))
    flac[21:26] = (flac[21] & 0xF0 | 0x0F, 0xFF, 0xFF, 0xFF, 0xFF)
    assert estimate_duration(bytes(flac)).duration_s > 24 * 3600


@pytest.mark.parametrize("container", sorted(EVERY))
@given(seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_damaged_headers_never_raise(container: str, seed: int) -> None:
    assert estimate_duration(mutate(_CACHE[container], seed)).duration_s >= 0


_CACHE = {container: recording(container, 3.0) for container in sorted(EVERY)}
