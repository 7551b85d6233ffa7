"""The files of jobs, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from serve_app.jobs.ports import JobFiles


class MemoryFiles:
    """Keeps files in a dictionary.

    Args:
        clock: returns the present time in UTC.

    Attributes:
        contents: by name.
        fault: raised by every method while it is set.
    """

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.contents: dict[str, bytes] = {}
        self.fault: Exception | None = None
        self._clock = clock
        self._written_at: dict[str, datetime] = {}

    async def put_bytes(self, name: str, content: bytes) -> None:
        self._check()
        self.contents[name] = content
        self._written_at[name] = self._clock()

    async def put_file(self, name: str, path: Path) -> None:
        await self.put_bytes(name, path.read_bytes())  # noqa: ASYNC240

    async def get_bytes(self, name: str) -> bytes:
        self._check()
        if name not in self.contents:
            raise FileNotFoundError(name)
        return self.contents[name]

    async def get_to(self, names: Sequence[str], path: Path) -> None:
        content = b"".join([await self.get_bytes(name) for name in names])
        path.write_bytes(content)  # noqa: ASYNC240

    async def names(self, job_id: str) -> Sequence[str]:
        self._check()
        return sorted(name for name in self.contents if name.startswith(f"{job_id}/"))

    async def delete(self, name: str) -> None:
        self._check()
        self.contents.pop(name, None)
        self._written_at.pop(name, None)

    async def delete_all(self, job_id: str) -> None:
        for name in await self.names(job_id):
            await self.delete(name)

    async def ids(self, older_than: timedelta) -> AsyncIterator[str]:
        self._check()
        newest: dict[str, datetime] = {}
        for name, written_at in self._written_at.items():
            job_id = name.partition("/")[0]
            newest[job_id] = max(newest.get(job_id, written_at), written_at)
        for job_id, written_at in newest.items():
            if self._clock() - written_at >= older_than:
                yield job_id

    def _check(self) -> None:
        if self.fault is not None:
            raise self.fault


_: type[JobFiles] = MemoryFiles
