"""Uploaded recordings, on the page's disk until their request ends.

The files have no names: no request can reach another file, and they vanish with the process,
however it ends.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from serve_app.ui.visitors import Visitor


class UploadLost(Exception):
    """There is no such upload (any more)."""


class UploadsFull(Exception):
    """There is no room for another one."""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Bounds of what lies on the disk.

    Attributes:
        max_bytes: of all uploads, those under way and those being sent on included.
        max_bytes_per_visitor: of one visitor's.
        keep_s: age at which an upload whose request never began is deleted.
        max_per_visitor: uploads of one visitor.
    """

    max_bytes: int
    max_bytes_per_visitor: int
    keep_s: float
    max_per_visitor: int = 4


@dataclass(slots=True, eq=False)
class Upload:
    """One visitor's recording.

    Attributes:
        id: names it for its visitor; nobody can guess it.
        visitor: whose it is.
        num_bytes: that are kept for it.
        file: without a name on the disk.
        session: page whose event it waits for, once there is one.
    """

    id: str
    visitor: str
    num_bytes: int
    file: BinaryIO
    session: str | None = None
    expiry: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class UploadStore:
    """The uploads of all visitors. For one event loop.

    Attributes:
        directory: of the page alone.
        limits: of what lies there.
    """

    directory: Path
    limits: UploadLimits
    _present: dict[str, Upload] = field(default_factory=dict)
    _ready: dict[str, Upload] = field(default_factory=dict)

    @property
    def num_ready(self) -> int:
        """Uploads that are complete and wait for their request to begin."""
        return len(self._ready)

    @property
    def num_bytes(self) -> int:
        """Bytes that are kept for uploads."""
        return sum(upload.num_bytes for upload in self._present.values())

    @contextmanager
    def receiving(self, visitor: Visitor, num_bytes: int) -> Iterator[Upload]:
        """Keeps room for an upload while it comes; without `complete` it is gone at the end.

        Raises:
            UploadsFull: there is no room, or this visitor has enough already.
        """
        own = [one.num_bytes for one in self._present.values() if one.visitor == visitor.id]
        if (
            self.num_bytes + num_bytes > self.limits.max_bytes
            or sum(own) + num_bytes > self.limits.max_bytes_per_visitor
            or len(own) >= self.limits.max_per_visitor
        ):
            raise UploadsFull
        try:
            file = tempfile.TemporaryFile(dir=self.directory)  # noqa: SIM115  # until it is taken
        except OSError:
            raise UploadsFull from None
        upload = Upload(secrets.token_hex(16), visitor.id, num_bytes, file)
        self._present[upload.id] = upload
        try:
            yield upload
        finally:
            if upload.id not in self._ready:
                self._drop(upload)

    def complete(self, upload: Upload) -> None:
        """Lets an upload be claimed until its time is over."""
        upload.file.seek(0)
        upload.expiry = asyncio.get_running_loop().call_later(
            self.limits.keep_s, self._drop, upload
        )
        self._ready[upload.id] = upload

    def claim(self, visitor: Visitor, session: str, upload_id: str) -> None:
        """Has an upload belong to an event of one of its visitor's pages.

        Raises:
            UploadLost: this visitor has no such upload, or it belongs to an event already.
        """
        upload = self._ready.get(upload_id)
        if upload is None or upload.visitor != visitor.id or upload.session is not None:
            raise UploadLost
        upload.session = session

    @contextmanager
    def taken(self, session: str, upload_id: object) -> Iterator[BinaryIO]:
        """Yields the recording that an event is about; afterwards it is gone.

        Raises:
            UploadLost: the event's page has claimed no such upload.
        """
        upload = self._ready.get(upload_id) if isinstance(upload_id, str) else None
        if upload is None or upload.session is None or upload.session != session:
            raise UploadLost
        del self._ready[upload.id]
        if upload.expiry is not None:
            upload.expiry.cancel()
        try:
            yield upload.file
        finally:
            self._drop(upload)

    def leave(self, session: str) -> None:
        """Drops what a page claimed and whose request has not begun."""
        for upload in [one for one in self._ready.values() if one.session == session]:
            self._drop(upload)

    def close(self) -> None:
        """Drops all that waits."""
        for upload in list(self._present.values()):
            self._drop(upload)

    def _drop(self, upload: Upload) -> None:
        self._ready.pop(upload.id, None)
        if self._present.pop(upload.id, None) is not None:
            upload.file.close()
        if upload.expiry is not None:
            upload.expiry.cancel()
