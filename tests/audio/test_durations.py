"""The length of a recording from its headers, beside its true one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.audio.durations import estimate_duration
from tests.audio.recordings import COMPRESSED, encode, sine
from tests.fakes.mutated_audio import mutate

SECONDS = 12.0
DECLARED = {"wav", "rf64", "w64", "aiff", "flac", "ogg", "mp4", "webm"}
RECKONED = {"mp3", "aac", "amr"}


def recording(container: str) -> bytes:
    rate_hz = COMPRESSED.get(container, ("", "", 16_000))[2] or 16_000
    return encode(container, sine(SECONDS, rate_hz), rate_hz)


@pytest.mark.parametrize("container", sorted(DECLARED))
def test_declared_length_is_read(container: str) -> None:
    estimate = estimate_duration(recording(container))
    assert estimate.declared
    assert estimate.duration_s == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize("container", sorted(RECKONED))
def test_length_of_a_stream_is_reckoned_from_its_frames(container: str) -> None:
    estimate = estimate_duration(recording(container))
    assert not estimate.declared
    assert estimate.duration_s == pytest.approx(SECONDS, rel=0.1)


@pytest.mark.parametrize("container", sorted(set(COMPRESSED) - DECLARED - RECKONED))
def test_unknown_length_is_bounded_from_above(container: str) -> None:
    assert estimate_duration(recording(container)).duration_s >= SECONDS * 0.99


def test_bytes_that_are_no_audio_have_a_bound_too() -> None:
    assert estimate_duration(b"nothing of the kind" * 100).duration_s > 0
    assert estimate_duration(np.zeros(0, np.uint8)).duration_s == 0


def test_bomb_is_seen_by_what_its_header_declares() -> None:
    flac = bytearray(recording("flac"))
    flac[21:26] = (flac[21] & 0xF0 | 0x0F, 0xFF, 0xFF, 0xFF, 0xFF)
    assert estimate_duration(bytes(flac)).duration_s > 24 * 3600


@pytest.mark.parametrize("container", sorted(DECLARED | RECKONED))
@given(seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_damaged_headers_never_raise(container: str, seed: int) -> None:
    assert estimate_duration(mutate(_CACHE[container], seed)).duration_s >= 0


_CACHE = {container: recording(container) for container in sorted(DECLARED | RECKONED)}
