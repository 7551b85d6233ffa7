"""The frames of FLAC are found in what a parser took for one."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from serve_app.audio.flac_frames import FlacFrame, frames_of
from tests.audio import recordings

RATE_HZ = 16_000
NUM_SAMPLES = 5 * RATE_HZ + 7


def frames(channels: int = 1) -> bytes:
    """Returns all frames of a file, one after another."""
    noise = np.random.default_rng(0).normal(0, 0.1, (NUM_SAMPLES, channels)).astype(np.float32)
    file = recordings.encode("flac", noise[:, 0] if channels == 1 else noise, RATE_HZ)
    with av.open(io.BytesIO(file), "r") as container:
        return b"".join(bytes(packet) for packet in container.demux(audio=0))


@pytest.mark.parametrize("channels", [1, 2])
def test_frames_are_those_of_the_stream(channels: int) -> None:
    stream = frames(channels)

    found = frames_of(stream)

    assert b"".join(frame.content for frame in found) == stream
    first_samples = [frame.first_sample for frame in found]
    block = first_samples[1]
    assert block is not None
    assert first_samples == list(range(0, NUM_SAMPLES, block))


def test_frame_without_a_sound_header_stays_with_the_one_before() -> None:
    stream = frames()
    first, second, third, *_ = frames_of(stream)
    broken = first.content + bytes(4) + second.content[4:] + third.content

    found = frames_of(broken)

    assert found == [FlacFrame(broken[: -len(third.content)], 0), third]


def test_bytes_before_the_first_header_have_no_time() -> None:
    first, second, *_ = frames_of(frames())

    found = frames_of(bytes(100) + second.content)

    assert found == [FlacFrame(bytes(100), None), second]
    assert frames_of(first.content[4:]) == [FlacFrame(first.content[4:], None)]


@pytest.mark.parametrize(
    ("number", "coded"),
    [
        (0, b"\x00"),
        (127, b"\x7f"),
        (128, b"\xc2\x80"),
        (0x7FF, b"\xdf\xbf"),
        (0x800, b"\xe0\xa0\x80"),
        (0xF_FFFF_FFFF, b"\xfe\xbf\xbf\xbf\xbf\xbf\xbf"),
    ],
)
def test_frames_are_numbered_by_sample_where_their_lengths_vary(number: int, coded: bytes) -> None:
    head = b"\xff\xf9\x15\x08" + coded
    content = head + bytes([checksum(head)]) + bytes(20)

    assert frames_of(content) == [FlacFrame(content, number)]


def test_no_bytes_are_one_frame_that_is_damaged() -> None:
    assert frames_of(b"") == [FlacFrame(b"", None)]


@pytest.mark.parametrize("valid", [True, False])
def test_few_of_a_million_headers_are_looked_at(valid: bool) -> None:
    heads = []
    for number in range(0x10000, 0x10000 + 2000):
        coded = bytes([0xF0, 0x80 | number >> 12, 0x80 | number >> 6 & 63, 0x80 | number & 63])
        head = b"\xff\xf8\x15\x08" + coded
        heads.append(head + bytes([checksum(head) ^ (not valid)]))
    content = b"".join(heads)

    found = frames_of(content)

    assert b"".join(frame.content for frame in found) == content
    assert len(found) == (256 if valid else 1)


def checksum(content: bytes) -> int:
    """Returns CRC-8 by long division."""
    bits = int.from_bytes(content, "big") << 8
    for bit in range(bits.bit_length() - 1, 7, -1):
        if bits >> bit & 1:
            bits ^= 0x107 << bit - 8
    return bits
