"""A read-only file over bytes that are already in memory, or over a real file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

import numpy as np
import numpy.typing as npt

AudioSource: TypeAlias = bytes | memoryview | npt.NDArray[np.uint8] | Path | BinaryIO


class ByteSource:
    """What libsndfile and FFmpeg read from, through their callbacks.

    A buffer is neither copied nor changed. No method raises for a hostile
    offset or a failing disk: an exception inside a C callback would be printed
    or lost, so a failure is kept and handed out by `reraise_failure`.

    Args:
        source: a buffer of bytes, a path, or a seekable binary file, which
            stays open and belongs to the caller.
    """

    mode = "rb"

    def __init__(self, source: AudioSource) -> None:
        self._view: memoryview | None = None
        self._file: BinaryIO | None = None
        self._owns_file = isinstance(source, Path)
        self._failure: OSError | None = None
        self._start = 0
        self._position = 0
        if isinstance(source, Path):
            self._file = source.open("rb")
        elif isinstance(source, bytes | bytearray | memoryview | np.ndarray):
            # The stubs know no buffer protocol on arrays before Python 3.12.
            self._view = (
                memoryview(cast(bytes, source)).cast("B") if len(source) else memoryview(b"")
            )
        else:
            self._file = source
        self._end = (
            len(self._view) if self._view is not None else self._require_file().seek(0, io.SEEK_END)
        )

    @property
    def num_bytes(self) -> int:
        return self._end - self._start

    def skip(self, num_bytes: int) -> None:
        """Hides the first bytes from every later reader."""
        self._start = min(self._start + num_bytes, self._end)
        self._position = 0

    def peek(self, offset: int, num_bytes: int) -> bytes:
        """Returns up to num_bytes at offset without moving."""
        first = min(max(self._start + offset, self._start), self._end)
        last = min(first + max(num_bytes, 0), self._end)
        if self._view is not None:
            return bytes(self._view[first:last])
        try:
            file = self._require_file()
            file.seek(first)
            return file.read(last - first)
        except OSError as error:
            self._failure = error
            return b""

    def read(self, num_bytes: int = -1) -> bytes:
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
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        self._view = None
        self._end = self._start
        if self._owns_file and self._file is not None:
            self._file.close()

    def _require_file(self) -> BinaryIO:
        if self._file is None:
            raise OSError("the source is closed")
        return self._file
