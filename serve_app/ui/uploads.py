"""The uploads that lie on the page's disk until their request begins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


class UploadLost(Exception):
    """There is no such upload (any more)."""


class UploadsFull(Exception):
    """There is no room for another one."""


class UploadStore:
    """A directory of uploads with a bound.

    Args:
        directory: of these uploads alone.
        max_bytes: of all of them, those under way included.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory.resolve()
        self._max_bytes = max_bytes
        self._reserved_bytes = 0

    @property
    def directory(self) -> Path:
        return self._directory

    @contextmanager
    def reserve(self, num_bytes: int) -> Iterator[None]:
        """Keeps room for an upload while it comes.

        Raises:
            UploadsFull: there is no room.
        """
        if self._stored_bytes() + self._reserved_bytes + num_bytes > self._max_bytes:
            raise UploadsFull
        self._reserved_bytes += num_bytes
        try:
            yield
        finally:
            self._reserved_bytes -= num_bytes

    def take(self, name: object) -> BinaryIO:
        """Returns an upload, which has no name on the disk any more: it goes when it is closed.

        Args:
            name: its path, as a browser sent it.

        Raises:
            UploadLost: there is no such upload.
        """
        path = self._path(name)
        try:
            file = path.open("rb")
        except OSError:
            raise UploadLost from None
        with suppress(OSError):
            path.unlink()
            path.parent.rmdir()
        return file

    def _path(self, name: object) -> Path:
        if not isinstance(name, str) or "\0" in name:
            raise UploadLost
        path = Path(os.path.realpath(name))
        # As Gradio lays them: a directory with an unguessable name, a file in it.
        if path.parent.parent != self._directory or not path.is_file():
            raise UploadLost
        return path

    def _stored_bytes(self) -> int:
        total = 0
        for folder, _, names in os.walk(self._directory):
            for name in names:
                with suppress(OSError):
                    total += Path(folder, name).stat().st_size
        return total
