"""A read-only, seekable view of bytes in memory or of a file."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Self, TypeAlias, cast

import numpy as np
import numpy.typing as npt

AudioSource: TypeAlias = bytes | memoryview | npt.NDArray[np.uint8] | Path | BinaryIO


class ByteSource:
    """The input of the decoders; FFmpeg reads it through callbacks.

    A buffer is neither copied nor changed. No method raises on an invalid offset or a failing
    disk: an exception inside a C callback would be printed or lost, so the failure is stored
    for `reraise_failure`.

    Args:
        source: a buffer of bytes, a path, or a seekable binary file, which
            stays open and belongs to the caller.
    """

    mode = "rb"

    def __init__(self, source: AudioSource) -> None:
        self._storage = _Storage(source)
        self._prefix = b""
        self._start = 0
        self._end = self._storage.num_bytes
        self._position = 0

    @property
    def num_bytes(self) -> int:
        return len(self._prefix) + self._end - self._start

    def limit_reads(self, exhausted: Callable[[], bool] | None) -> None:
        """Makes this source and its views report the end of the file once `exhausted` is true.

        This stops a library that parses a hostile file, since it reads as it goes.
        """
        self._storage.exhausted = exhausted

    def skip(self, num_bytes: int) -> None:
        """Drops the first bytes for this source and its later views."""
        self._start = min(self._start + num_bytes, self._end)
        self._position = 0

    def view(self, start: int = 0, end: int | None = None, prefix: bytes = b"") -> Self:
        """Returns another reader of the same bytes, with its own position.

        Args:
            start: offset of its first byte in this source.
            end: offset one past its last byte, None for all.
            prefix: bytes that are read before them.
        """
        other = type(self).__new__(type(self))
        other._storage = self._storage
        other._prefix = prefix
        other._start = min(self._start + max(start, 0), self._end)
        last = self._end if end is None else min(self._start + end, self._end)
        other._end = max(last, other._start)
        other._position = 0
        return other

    def peek(self, offset: int, num_bytes: int) -> bytes:
        """Returns up to num_bytes at offset without moving."""
        first = max(offset, 0)
        last = min(first + max(num_bytes, 0), self.num_bytes)
        if last <= first:
            return b""
        shift = self._start - len(self._prefix)
        if first >= len(self._prefix):
            return self._storage.read(shift + first, shift + last)
        head = self._prefix[first:last]
        if last <= len(self._prefix):
            return head
        return head + self._storage.read(self._start, shift + last)

    def read(self, num_bytes: int = -1) -> bytes:
        if self._storage.exhausted is not None and self._storage.exhausted():
            return b""
        taken = self.peek(self._position, num_bytes if num_bytes >= 0 else self.num_bytes)
        self._position += len(taken)
        return taken

    def readinto(self, target: memoryview) -> int:
        taken = self.read(len(target))
        target[: len(taken)] = taken
        return len(taken)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence, self.num_bytes)
        self._position = min(max(base + offset, 0), self.num_bytes)
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return True

    def reraise_failure(self) -> None:
        """Raises the OSError of the underlying file, if there was one."""
        if self._storage.failure is not None:
            raise self._storage.failure

    def close(self) -> None:
        """Closes the file if it was opened here; afterwards all views are empty."""
        self._end = self._start
        self._storage.close()


class _Storage:
    """The bytes, which several views may share."""

    def __init__(self, source: AudioSource) -> None:
        self._view: memoryview | None = None
        self._file: BinaryIO | None = None
        self._owns_file = isinstance(source, Path)
        self.failure: OSError | None = None
        self.exhausted: Callable[[], bool] | None = None
        if isinstance(source, Path):
            self._file = source.open("rb")
        elif isinstance(source, bytes | bytearray | memoryview | np.ndarray):
            # The type stubs lack the buffer protocol of arrays before Python 3.12.
            self._view = (
                memoryview(cast(bytes, source)).cast("B") if len(source) else memoryview(b"")
            )
        else:
            self._file = source
        self.num_bytes = (
            len(self._view) if self._view is not None else self._require_file().seek(0, io.SEEK_END)
        )

    def read(self, first: int, last: int) -> bytes:
        if self._view is not None:
            return bytes(self._view[first:last])
        try:
            file = self._require_file()
            file.seek(first)
            return file.read(last - first)
        except OSError as error:
            self.failure = error
            return b""

    def close(self) -> None:
        self._view = memoryview(b"") if self._view is not None else None
        if self._owns_file and self._file is not None:
            self._file.close()

    def _require_file(self) -> BinaryIO:
        if self._file is None:
            raise OSError("the source is closed")
        return self._file
