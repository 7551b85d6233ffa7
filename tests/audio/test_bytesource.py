from __future__ import annotations

import io

import numpy as np
import pytest

from serve_app.audio.bytesource import ByteSource


class _FailingDisk(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError("input/output error")


@pytest.fixture(params=["bytes", "array", "file"])
def source(request: pytest.FixtureRequest) -> ByteSource:
    content = bytes(range(100))
    if request.param == "array":
        return ByteSource(np.frombuffer(content, np.uint8))
    return ByteSource(io.BytesIO(content) if request.param == "file" else content)


def test_reading_past_the_end_returns_the_remaining_bytes(source: ByteSource) -> None:
    source.seek(90)

    assert source.read(50) == bytes(range(90, 100))
    assert source.read(50) == b""


@pytest.mark.parametrize("whence", [io.SEEK_SET, io.SEEK_CUR, io.SEEK_END])
@pytest.mark.parametrize("offset", [-(2**63), -1, 2**63 - 1])
def test_no_seek_leaves_the_file(source: ByteSource, offset: int, whence: int) -> None:
    assert 0 <= source.seek(offset, whence) <= 100


def test_skipped_bytes_are_out_of_reach(source: ByteSource) -> None:
    source.skip(40)

    assert source.num_bytes == 60
    assert source.seek(0) == 0
    assert source.read(2) == bytes([40, 41])
    assert source.peek(-5, 1) == bytes([40])


def test_readinto_fills_the_buffer(source: ByteSource) -> None:
    buffer = bytearray(8)

    assert source.readinto(memoryview(buffer)) == 8
    assert bytes(buffer) == bytes(range(8))
    assert source.tell() == 8


def test_a_failing_disk_is_reported_when_asked() -> None:
    source = ByteSource(_FailingDisk(b"1234"))

    assert source.read(2) == b""
    with pytest.raises(OSError, match="input/output"):
        source.reraise_failure()
