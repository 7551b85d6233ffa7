from __future__ import annotations

import struct

import pytest

from serve_app.audio.bytesource import ByteSource
from serve_app.audio.pcm_headers import read_pcm_header
from serve_app.core.errors import CorruptAudio
from tests.audio import recordings

_FORMAT = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)


@pytest.mark.parametrize(
    ("name", "subtype"),
    [
        (name, subtype)
        for name in ("wav", "rf64", "w64", "aiff")
        for subtype in ("PCM_16", "PCM_24", "FLOAT")
    ],
)
def test_both_lengths_are_read(name: str, subtype: str) -> None:
    file = recordings.encode(name, recordings.sine(2.0, 16_000, channels=2), 16_000, subtype)
    num_left_out = 2 * 16_000 * {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}[subtype]

    header = read_pcm_header(ByteSource(file[:-num_left_out]), name)

    assert header is not None
    assert header.pcm is not None
    assert header.declared_s == pytest.approx(2.0)
    # A few bytes of a trailing chunk may have been cut off instead.
    assert header.available_s == pytest.approx(1.0, abs=0.002)


def test_a_compressed_wav_is_not_plain() -> None:
    file = recordings.encode("wav", recordings.sine(1.0, 16_000), 16_000, "adpcm_ms")

    header = read_pcm_header(ByteSource(file), "wav")

    assert header is not None
    assert header.pcm is None


@pytest.mark.parametrize("num_bytes", range(0, 60, 3))
def test_a_cut_header_yields_no_lengths_or_true_ones(num_bytes: int) -> None:
    file = recordings.encode("wav", recordings.sine(1.0, 16_000), 16_000)[:num_bytes]

    header = read_pcm_header(ByteSource(file), "wav")

    assert header is None or header.declared_s in {None, 1.0}


@pytest.mark.parametrize(
    ("container", "file"),
    [
        ("wav", b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 100_000),
        ("w64", bytes(40) + (b"junk" + bytes(12) + struct.pack("<Q", 24)) * 100_000),
        ("aiff", b"FORM\0\0\0\0AIFF" + b"ANNO\0\0\0\0" * 100_000),
    ],
)
def test_a_file_with_too_many_chunks_is_refused(container: str, file: bytes) -> None:
    with pytest.raises(CorruptAudio, match="more than 1000 chunks"):
        read_pcm_header(ByteSource(file), container)


def test_chunks_of_studio_programs_are_skipped() -> None:
    file = b"RIFF\0\0\0\0WAVE" + _FORMAT + b"junk\0\0\0\0" * 500 + b"data\x08\0\0\0" + bytes(8)

    header = read_pcm_header(ByteSource(file), "wav")

    assert header is not None
    assert header.num_bytes == 8
