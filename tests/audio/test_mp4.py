from __future__ import annotations

import struct

import pytest

from serve_app.audio.bytesource import ByteSource
from serve_app.audio.mp4 import read_mp4_layout
from serve_app.core.errors import CorruptAudio
from tests.audio import recordings


def box(name: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", len(body) + 8, name) + body


def test_an_ordinary_file_is_not_fragmented() -> None:
    file = recordings.mux("mp4", "aac", recordings.sine(1.0, 16_000), 16_000, video=True)

    assert not read_mp4_layout(ByteSource(file)).fragmented


def test_fragments_are_seen() -> None:
    options = {"movflags": "frag_keyframe+empty_moov"}
    file = recordings.mux("mp4", "aac", recordings.sine(1.0, 16_000), 16_000, options=options)

    assert read_mp4_layout(ByteSource(file)).fragmented


def test_a_run_of_billions_of_samples_is_corrupt() -> None:
    run = box(b"trun", bytes(4), struct.pack(">I", 2**31))
    file = box(b"moov") + box(b"moof", box(b"traf", run))

    with pytest.raises(CorruptAudio, match="2147483648 packets"):
        read_mp4_layout(ByteSource(file))


def test_a_compressed_index_is_refused() -> None:
    with pytest.raises(CorruptAudio, match="compressed"):
        read_mp4_layout(ByteSource(box(b"moov", box(b"cmov", bytes(20)))))


@pytest.mark.parametrize("num_bytes", [0, 1, 2, 7, 2**32 - 1])
def test_absurd_box_lengths_end_the_walk(num_bytes: int) -> None:
    file = box(b"moov") + struct.pack(">I4s", num_bytes, b"free") + bytes(40)

    assert not read_mp4_layout(ByteSource(file)).fragmented


def test_more_boxes_than_any_recorder_writes_are_corrupt() -> None:
    with pytest.raises(CorruptAudio, match="too many boxes"):
        read_mp4_layout(ByteSource(box(b"free") * 300_000))
