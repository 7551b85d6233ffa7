"""Opens local and remote recordings for the decoder.

Local files are read directly. Remote files are fetched in ranges of bounded size as the
decoder reads them; transient errors are retried.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem
from tenacity import RetryError, Retrying, retry_if_exception, stop_after_attempt

from serve_app.audio.bytesource import AudioSource
from serve_app.batch.storage import filesystem_of
from serve_app.batch.uris import has_scheme
from serve_app.scheduling.backoff import Backoff

ResultT = TypeVar("ResultT")

_BACKOFF = Backoff(first_s=0.5, longest_s=20.0)
_RANGES_KEPT = 8
READ_RANGE_BYTES = 2**20
"""Fetched at once: large enough that latency does not dominate; eight are kept in memory."""
# A retry gives the same answer.
_FINAL = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, ImportError)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read remote files.

    Attributes:
        range_bytes: size of a fetched range.
        attempts: maximum attempts of a fetch, at least 1.
        idle: entered while this thread waits for bytes, to let other threads compute.
        sleep: waits between two attempts.
    """

    range_bytes: int
    attempts: int
    idle: Callable[[], AbstractContextManager[object]] = nullcontext
    sleep: Callable[[float], None] = time.sleep


class ReadFailed(OSError):
    """A fetch failed for a reason that may be transient.

    Attributes:
        attempts: number of attempts.
    """

    def __init__(self, reason: str, attempts: int) -> None:
        super().__init__(reason)
        self.attempts = attempts

    def __reduce__(self) -> tuple[type[ReadFailed], tuple[str, int]]:
        return ReadFailed, (str(self), self.attempts)


@contextmanager
def open_audio(uri: str, options: ReadOptions) -> Iterator[AudioSource]:
    """Yields a source for the decoder.

    Raises:
        FileNotFoundError: the file does not exist.
        ReadFailed: its store does not answer.
        OSError: it cannot be read.
        UnusableUri: see `parse_uri`.
    """
    if not has_scheme(uri):
        yield _existing(Path(uri))
        return
    filesystem, path = filesystem_of(uri)
    if isinstance(filesystem, LocalFileSystem):
        yield _existing(Path(path))
        return
    file = _RetryingFile(filesystem, path, options)
    try:
        yield cast(BinaryIO, file)
    finally:
        file.close()


def _may_pass(error: BaseException) -> bool:
    # Every store has its own errors for a connection that breaks.
    return isinstance(error, Exception) and not isinstance(error, _FINAL)


def _existing(path: Path) -> Path:
    with path.open("rb"):
        return path


class _RetryingFile(io.RawIOBase):
    """A file in an fsspec store; failed reads are retried on a new handle."""

    def __init__(
        self, filesystem: fsspec.AbstractFileSystem, path: str, options: ReadOptions
    ) -> None:
        super().__init__()
        self._filesystem = filesystem
        self._path = path
        self._options = options
        self._position = 0
        self._file: BinaryIO | None = None
        self._size = self._retry(lambda file: file.seek(0, io.SEEK_END))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence, self._size)
        self._position = max(base + offset, 0)
        return self._position

    def read(self, num_bytes: int = -1, /) -> bytes:
        wanted = self._size - self._position if num_bytes < 0 else num_bytes
        wanted = max(0, min(wanted, self._size - self._position))
        if not wanted:
            return b""
        position = self._position

        def fetch(file: BinaryIO) -> bytes:
            file.seek(position)
            data = file.read(wanted)
            if len(data) != wanted:
                raise OSError(f"{len(data)} bytes received instead of {wanted}")
            return data

        data = self._retry(fetch)
        self._position += len(data)
        return data

    def close(self) -> None:
        if not self.closed:
            self._drop()
        super().close()

    def _retry(self, fetch: Callable[[BinaryIO], ResultT]) -> ResultT:
        retrying = Retrying(
            stop=stop_after_attempt(self._options.attempts),
            wait=_BACKOFF,
            retry=retry_if_exception(_may_pass),
            sleep=self._sleep,
        )
        try:
            result: ResultT = retrying(self._try_once, fetch)
            return result
        except RetryError as failed:
            error = failed.last_attempt.exception()
            reason = f"{type(error).__name__}: {error}"
            raise ReadFailed(reason.splitlines()[0], failed.last_attempt.attempt_number) from error

    def _try_once(self, fetch: Callable[[BinaryIO], ResultT]) -> ResultT:
        try:
            with self._options.idle():
                if self._file is None:
                    self._file = self._open()
                return fetch(self._file)
        except Exception:
            self._drop()
            raise

    def _sleep(self, time_s: float) -> None:
        with self._options.idle():
            self._options.sleep(time_s)

    def _open(self) -> BinaryIO:
        # The block cache fetches an index at the end of a file without the part in between.
        file = self._filesystem.open(
            self._path,
            "rb",
            block_size=self._options.range_bytes,
            cache_type="blockcache",
            cache_options={"maxblocks": _RANGES_KEPT},
        )
        return cast(BinaryIO, file)

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            # The handle may be broken.
            with suppress(Exception):
                file.close()
