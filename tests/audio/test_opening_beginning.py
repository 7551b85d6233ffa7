"""What is certain of a file before all of it is there."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from serve_app.audio.opening import BEGINNING_BYTES, check_beginning
from serve_app.core.errors import CorruptAudio, UnknownAudioFormat
from tests.audio import recordings

_EMPTY = b"junk\0\0\0\0" * (BEGINNING_BYTES // 8)
_TAG = b"ID3\4\0\0" + bytes((0x7F, 0x7F, 0x7F, 0x7F))
_W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00" + bytes(24)
_BEGINNINGS = {
    "a chunk that goes on": b"RIFF\0\0\0\0WAVELIST\xff\xff\xff\x0f" + bytes(600_000),
    "chunks that are damaged": b"RIFF\0\0\0\0WAVE" + bytes(600_000),
    "a tag that goes on": _TAG + bytes(600_000),
    "a tag before what is unknown": b"ID3\4\0\0\0\0\0\x10" + bytes(600_000),
}


@pytest.mark.parametrize("name", ["wav", *recordings.COMPRESSED])
def test_recordings_are_let_pass(name: str) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 30 * 16_000).astype(np.float32)
    rate_hz = recordings.COMPRESSED.get(name, ("", "", 0))[2] or 16_000

    check_beginning(recordings.encode(name, noise, rate_hz)[:BEGINNING_BYTES])


@pytest.mark.parametrize("name", sorted(_BEGINNINGS))
def test_what_the_rest_may_still_explain_is_let_pass(name: str) -> None:
    check_beginning(_BEGINNINGS[name][:BEGINNING_BYTES])


def test_frames_behind_a_damaged_beginning_are_let_pass() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 60 * 16_000).astype(np.float32)

    check_beginning((bytes(200_000) + recordings.encode("mp3", noise, 16_000))[:BEGINNING_BYTES])


def test_file_that_is_not_audio_is_refused() -> None:
    with pytest.raises(UnknownAudioFormat):
        check_beginning(bytes(BEGINNING_BYTES))


@pytest.mark.parametrize(
    "beginning",
    [
        b"RIFF\0\0\0\0WAVE" + _EMPTY,
        b"RIFX\0\0\0\0WAVE" + _EMPTY,
        b"RF64\xff\xff\xff\xffWAVE" + _EMPTY,
        b"FORM\0\0\0\0AIFF" + _EMPTY,
        _W64 + (b"junk" + bytes(12) + struct.pack("<Q", 24)) * 10_000,
    ],
)
def test_chunks_without_end_are_refused(beginning: bytes) -> None:
    with pytest.raises(CorruptAudio, match="chunks"):
        check_beginning(beginning[:BEGINNING_BYTES])
