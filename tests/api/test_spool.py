"""Recordings on disk: bounded, and never left behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from serve_app.api.spool import SpoolDirectory, SpoolFile
from serve_app.audio.opening import BEGINNING_BYTES
from serve_app.core.errors import StorageFull, UnknownAudioFormat, UploadTooLarge

HOLD = """
import sys
from pathlib import Path
from serve_app.api.spool import SpoolDirectory
spool = SpoolDirectory(Path(sys.argv[1])).open(1 << 20)
spool.write(b"x" * 100_000)
print("written", flush=True)
sys.stdin.read()
"""


class FullDisk:
    """Takes some bytes, then is full."""

    def __init__(self, room_bytes: int, number: int) -> None:
        self.room_bytes = room_bytes
        self.number = number

    def write(self, data: memoryview) -> int:
        if not self.room_bytes:
            raise OSError(self.number, os.strerror(self.number))
        taken = min(len(data), self.room_bytes)
        self.room_bytes -= taken
        return taken


def test_content_returns_the_written_bytes(tmp_path: Path) -> None:
    spool = SpoolDirectory(tmp_path).open(100)
    spool.write(b"ab")
    spool.write(memoryview(b"cd"))
    assert spool.content().tobytes() == b"abcd"
    assert os.listdir(tmp_path) == []
    spool.close()


def test_limit_and_growth_are_asked_before_bytes_are_written(tmp_path: Path) -> None:
    grown: list[int] = []
    spool = SpoolDirectory(tmp_path).open(5, grown.append)
    spool.write(b"abc")
    with pytest.raises(UploadTooLarge):
        spool.write(b"def")
    assert grown == [3]
    assert spool.size_bytes == 3
    spool.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_reported_as_storage_full(number: int) -> None:
    spool = SpoolFile(cast(BinaryIO, FullDisk(4, number)), 100, lambda num_bytes: None)
    with pytest.raises(StorageFull):
        spool.write(b"abcdef")


def test_other_failures_of_the_disk_are_not_called_full() -> None:
    spool = SpoolFile(cast(BinaryIO, FullDisk(0, errno.EIO)), 100, lambda num_bytes: None)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        spool.write(b"abcdef")


def test_killed_process_leaves_no_file(tmp_path: Path) -> None:
    before = os.statvfs(tmp_path).f_files
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
    assert os.listdir(tmp_path) == []
    assert before == os.statvfs(tmp_path).f_files


def test_beginning_is_checked_once_it_has_arrived(tmp_path: Path) -> None:
    seen: list[bytes] = []
    spool = SpoolDirectory(tmp_path).open(1 << 20)
    spool.check_beginning = seen.append
    spool.write(b"a" * (BEGINNING_BYTES - 1))
    assert not seen
    spool.write(b"bc")
    spool.write(b"d")
    assert seen == [b"a" * (BEGINNING_BYTES - 1) + b"b"]
    spool.close()


def test_a_beginning_may_be_refused(tmp_path: Path) -> None:
    def refuse(content: bytes) -> None:
        raise UnknownAudioFormat("it is none")

    spool = SpoolDirectory(tmp_path).open(1 << 20)
    spool.check_beginning = refuse
    with pytest.raises(UnknownAudioFormat):
        spool.write(bytes(BEGINNING_BYTES))
    spool.close()
