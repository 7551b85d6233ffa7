"""Temporary storage of a recording while it is processed: an unnamed file.

It has no directory entry, so it cannot be left behind: the kernel frees it when its
last handle closes, also when the process is killed.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from serve_app.audio.opening import BEGINNING_BYTES
from serve_app.core.errors import UploadTooLarge
from serve_app.core.records import FileBytes
from serve_app.core.storage import storage_full_or


@dataclass(slots=True)
class SpoolFile:
    """A file that grows up to a limit; close it when done.

    Attributes:
        max_bytes: the limit.
        on_growth: called with the new size before each write; may raise an error.
        check_beginning: is given the first `BEGINNING_BYTES` once they
            are there; may refuse them. None to take any.
        limit_setting: name of the setting that the limit comes from.
        size_bytes: written so far.
    """

    file: BinaryIO
    max_bytes: int
    on_growth: Callable[[int], None]
    check_beginning: Callable[[bytes], None] | None = None
    limit_setting: str = "audio.max_upload_bytes"
    size_bytes: int = field(default=0, init=False)
    _content: FileBytes | None = field(default=None, init=False)

    def write(self, data: bytes | memoryview) -> None:
        """Appends bytes.

        Raises:
            UploadTooLarge: the file would exceed its limit.
            StorageFull: the disk is full.
            AudioError: the bytes so far are not the beginning of a recording.
        """
        size_bytes = self.size_bytes + len(data)
        if size_bytes > self.max_bytes:
            raise self.too_large()
        self.on_growth(size_bytes)
        rest = memoryview(data)
        try:
            # Unbuffered, so that a full disk is noticed here; then a write may be partial.
            while rest:
                rest = rest[self.file.write(rest) :]
        except OSError as error:
            raise storage_full_or(error) from error
        self.size_bytes = size_bytes
        if self.check_beginning is not None and size_bytes >= BEGINNING_BYTES:
            check, self.check_beginning = self.check_beginning, None
            check(os.pread(self.file.fileno(), BEGINNING_BYTES, 0))

    def too_large(self) -> UploadTooLarge:
        """Returns the error for content over the limit."""
        return UploadTooLarge(self.max_bytes, self.limit_setting)

    def content(self) -> FileBytes:
        """Returns the file's bytes, mapped, not read into memory; nothing is written after.

        The file goes when it is closed and the last user of its bytes is gone.
        """
        if self._content is None:
            mapped = mmap.mmap(self.file.fileno(), self.size_bytes, access=mmap.ACCESS_READ)
            self._content = np.frombuffer(mapped, dtype=np.uint8)
        return self._content

    def close(self) -> None:
        self._content = None
        self.file.close()


@dataclass(frozen=True, slots=True)
class SpoolDirectory:
    """Makes spool files.

    Attributes:
        path: on disk or tmpfs; None for the system's temporary directory.
    """

    path: Path | None = None

    def open(
        self, max_bytes: int, on_growth: Callable[[int], None] = lambda num_bytes: None
    ) -> SpoolFile:
        """Returns an empty file.

        Raises:
            StorageFull: the disk is full.
        """
        try:
            # The returned object owns the file.
            file = tempfile.TemporaryFile(dir=self.path, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise storage_full_or(error) from error
        return SpoolFile(cast(BinaryIO, file), max_bytes, on_growth)
