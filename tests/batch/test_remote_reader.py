from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from serve_app.batch.remote_reader import ReadFailed, ReadOptions, open_audio

CONTENT = bytes(range(256)) * 4000


class Slept:
    def __init__(self) -> None:
        self.times_s: list[float] = []

    def __call__(self, time_s: float) -> None:
        self.times_s.append(time_s)


@pytest.fixture
def bucket() -> Iterator[MemoryFileSystem]:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/bucket/a.wav", CONTENT)
    yield filesystem
    filesystem.rm("/bucket", recursive=True)


@pytest.fixture
def slept() -> Slept:
    return Slept()


@pytest.fixture
def options(slept: Slept) -> ReadOptions:
    return ReadOptions(64 * 1024, 3, sleep=slept)


class Breaking(io.BytesIO):
    """Breaks at the first reads after each opening, as often as there are faults."""

    faults = 0

    def read(self, num_bytes: int | None = -1, /) -> bytes:
        if Breaking.faults:
            Breaking.faults -= 1
            raise ConnectionResetError("peer went away")
        return super().read(num_bytes)


@pytest.fixture
def breaking(bucket: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> type[Breaking]:
    monkeypatch.setattr(MemoryFileSystem, "open", lambda *args, **kwargs: Breaking(CONTENT))
    return Breaking


def test_local_file_is_handed_on_as_it_is(tmp_path: Path, options: ReadOptions) -> None:
    path = tmp_path / "a b.wav"
    path.write_bytes(b"x")
    for uri in (str(path), f"file://{path}"):
        with open_audio(uri, options) as source:
            assert source == path


@pytest.mark.parametrize("uri", ["{0}/none.wav", "file://{0}/none.wav", "memory://none/none.wav"])
def test_missing_file_is_not_tried_again(
    uri: str, tmp_path: Path, options: ReadOptions, slept: Slept
) -> None:
    with pytest.raises(FileNotFoundError), open_audio(uri.format(tmp_path), options):
        pass
    assert slept.times_s == []


@pytest.mark.usefixtures("bucket")
def test_remote_file_is_read_wherever_one_looks(options: ReadOptions) -> None:
    with open_audio("memory://bucket/a.wav", options) as source:
        file = cast(BinaryIO, source)
        assert file.seek(0, io.SEEK_END) == len(CONTENT)
        assert file.read(10) == b""
        file.seek(1000)
        assert file.read(1000) == CONTENT[1000:2000]
        assert file.read(5) == CONTENT[2000:2005]
        file.seek(0)
        assert file.read() == CONTENT


def test_broken_read_is_tried_again_with_growing_pauses(
    breaking: type[Breaking], options: ReadOptions, slept: Slept
) -> None:
    with open_audio("memory://bucket/a.wav", options) as source:
        breaking.faults = 2
        assert cast(BinaryIO, source).read(100) == CONTENT[:100]
    first, second = slept.times_s
    assert 0.25 <= first <= 0.5 <= second <= 1.0


def test_read_that_keeps_failing_reports_the_number_of_attempts(
    breaking: type[Breaking], options: ReadOptions
) -> None:
    with open_audio("memory://bucket/a.wav", options) as source:
        breaking.faults = 100
        with pytest.raises(ReadFailed, match="peer went away") as caught:
            cast(BinaryIO, source).read(100)
        breaking.faults = 0
    assert caught.value.attempts == 3


def test_others_may_compute_while_bytes_are_fetched(bucket: MemoryFileSystem) -> None:
    idle: list[str] = []

    class Idle:
        def __enter__(self) -> None:
            idle.append("idle")

        def __exit__(self, *_: object) -> None:
            idle.append("busy")

    options = ReadOptions(64 * 1024, 3, Idle)
    with open_audio("memory://bucket/a.wav", options) as source:
        cast(BinaryIO, source).read(100)
    assert idle == ["idle", "busy"] * 2
