from __future__ import annotations

import pytest

from serve_app.audio import AudioDecoder, AudioLimits
from serve_app.audio.bytesource import ByteSource
from serve_app.audio.containers import HEAD_BYTES, id3_num_bytes, sniff, sniff_source
from tests.audio import recordings


@pytest.mark.parametrize("name", ["wav", "rf64", "w64", "aiff", *recordings.COMPRESSED])
def test_every_container_is_recognized_by_its_head(name: str) -> None:
    rate_hz = recordings.COMPRESSED.get(name, ("", "", 0))[2] or 44_100

    file = recordings.encode(name, recordings.sine(0.5, rate_hz), rate_hz)

    assert sniff(file[:HEAD_BYTES]) == name


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff",
        b"RIFF\0\0\0\0WEBP",
        b"#EXTM3U\n",
        b"ffconcat version 1.0",
        b"\x89PNG\r\n\x1a\n",
        b"%PDF-1.7",
        b"PK\x03\x04",
        b"\xff" * 4096,
        "语音识别".encode() * 100,
    ],
)
def test_bytes_that_are_not_audio_are_not_sniffed(head: bytes) -> None:
    assert sniff(head) is None


def test_one_frame_header_by_chance_is_not_enough() -> None:
    header = b"\xff\xfb\x90\x64"

    assert sniff(b"text " * 40 + header + b" text" * 400) is None


def test_a_tag_is_measured_with_its_header_and_footer() -> None:
    assert id3_num_bytes(b"ID3\x04\x00\x00\x00\x00\x01\x02") == 10 + 130
    assert id3_num_bytes(b"ID3\x04\x00\x10\x00\x00\x01\x02") == 10 + 130 + 10
    assert id3_num_bytes(b"ID3\x04\x00\x00\xff\x00\x01\x02") == 0


def test_a_tag_larger_than_the_head_is_seen_through() -> None:
    tag = b"ID3\x04\x00\x00\x00\x01\x00\x00" + bytes(1 << 14)
    flac = recordings.encode("flac", recordings.sine(0.5, 16_000), 16_000)
    source = ByteSource(tag + flac)

    assert sniff_source(source) == "flac"
    assert source.num_bytes == len(flac)


def test_a_transport_stream_of_a_camera_is_recognized_and_decoded() -> None:
    plain = recordings.encode("mpegts", recordings.sine(4.0, 16_000), 16_000)
    file = b"".join(bytes(4) + plain[at : at + 188] for at in range(0, len(plain), 188))

    assert sniff(file[:HEAD_BYTES]) == "mpegts"
    with AudioDecoder(file, AudioLimits()) as decoder:
        num_samples = sum(len(block) for block in decoder.blocks())
    assert num_samples / 16_000 == pytest.approx(4.0, abs=0.2)
