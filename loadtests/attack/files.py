"""Recordings and bodies that are made to cost more than they say."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from loadtests.uploads.bodies import BOUNDARY, FORM_TYPE, form

_RATE_HZ = 16_000


def wav_of_empty_chunks(size_bytes: int) -> bytes:
    """A WAV whose sound is behind as many chunks of no content as fit into `size_bytes`."""
    format_chunk = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, _RATE_HZ, 2 * _RATE_HZ, 2, 16)
    empty = b"junk\0\0\0\0" * (size_bytes // 8)
    sound = struct.pack("<4sI", b"data", 3200) + bytes(3200)
    content = b"WAVE" + format_chunk + empty + sound
    return b"RIFF" + struct.pack("<I", len(content)) + content


def mkv_of_single_samples(num_blocks: int) -> bytes:
    """A Matroska file with one sample of PCM a block."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=_RATE_HZ)
        stream.layout = "mono"
        for index in range(num_blocks):
            packet = av.Packet(b"\x01\x00")
            packet.stream = stream
            packet.pts = packet.dts = index
            packet.time_base = Fraction(1, _RATE_HZ)
            container.mux(packet)
    return file.getvalue()


def flac_of_zeros(seconds: float) -> bytes:
    """Silence, which packs into almost nothing."""
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=_RATE_HZ)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), "s16", "mono")
        frame.rate = _RATE_HZ
        for index in range(int(seconds * _RATE_HZ / 4096)):
            frame.pts = index * 4096
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def odd_forms() -> Iterator[tuple[str, bytes]]:
    """Yields forms that are none, or too much of one."""
    line = f"--{BOUNDARY}\r\n".encode()
    part = line + b'Content-Disposition: form-data; name="x%d"\r\n\r\ny\r\n'
    yield FORM_TYPE, b"".join(part % number for number in range(20_000))
    yield FORM_TYPE, line + b"X-A: b\r\n" * 200_000 + b"\r\n"
    yield FORM_TYPE, line + b'Content-Disposition: form-data; name="a' + b"a" * 2_000_000
    yield "multipart/form-data", b"no boundary at all"
    yield FORM_TYPE, line * 100_000
    yield FORM_TYPE, form(b"", fields={"hotwords": "词 " * 500_000})


def odd_json() -> Iterator[tuple[str, bytes]]:
    """Yields JSON bodies that parsers stumble over."""
    kind = "application/json"
    yield kind, b"[" * 2_000_000
    yield kind, b'{"a":' * 500_000
    yield kind, b'{"\\ud800": {}}'
    yield kind, b'{"audio_url": ' + b"9" * 1_000_000 + b"}"
    yield kind, b'{"audio_url": NaN}'
    yield kind, b"\xff\xfe\x00"
    yield kind, json.dumps({str(number): number for number in range(200_000)}).encode()


def tricky_urls() -> tuple[str, ...]:
    """Addresses that must not be fetched: files, the machine itself, other buckets."""
    return (
        "file:///etc/passwd",
        "http://127.0.0.1:8265/api/version",
        "http://[::ffff:127.0.0.1]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost./",
        "http://user@127.0.0.1/",
        "s3://allowed/../other/secret.wav",
        "s3://allowed/%2e%2e/other/secret.wav",
        "reference://a.wav::file:///evil.json",
        "https://example.invalid\\@127.0.0.1/",
    )
