"""A recording of a job as a local file that nobody can leave behind.

The file loses its name as soon as it is complete, so the kernel frees it when its last user is
gone, also when the process is killed. What a process leaves that is killed before that is
removed by `remove_leftovers`.
"""

from __future__ import annotations

import asyncio
import mmap
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from serve_app.core.errors import EmptyUpload
from serve_app.core.records import FileBytes
from serve_app.core.storage import storage_full_or
from serve_app.jobs.ports import JobFiles

_PREFIX = "paraserve-job-"
_LEFT_BEHIND_S = 86_400.0


async def fetch_recording(
    files: JobFiles, names: Sequence[str], spool_dir: Path | None
) -> FileBytes:
    """Returns the bytes of files one after the other, mapped, not read into memory.

    Args:
        files: where they are.
        names: of the files, in order.
        spool_dir: where the copy is made; None for the system's temporary directory.

    Raises:
        FileNotFoundError: a file is missing.
        EmptyUpload: the recording has no bytes.
        StorageFull: the local disk is full.
        StoreUnavailable: the files cannot be read now.
    """
    try:
        folder = await asyncio.to_thread(tempfile.mkdtemp, prefix=_PREFIX, dir=spool_dir)
    except OSError as error:
        raise storage_full_or(error) from error
    path = Path(folder) / "audio"
    try:
        await files.get_to(names, path)
        return await asyncio.to_thread(_map, path)
    except OSError as error:
        raise storage_full_or(error) from error
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def remove_leftovers(spool_dir: Path | None) -> None:
    """Removes copies of more than a day ago, whose process was killed while it made them."""
    folder = spool_dir or Path(tempfile.gettempdir())
    for path in folder.glob(f"{_PREFIX}*"):
        try:
            age_s = time.time() - path.stat().st_mtime
        except OSError:
            continue
        if age_s > _LEFT_BEHIND_S:
            shutil.rmtree(path, ignore_errors=True)


def _map(path: Path) -> FileBytes:
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise EmptyUpload
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, dtype=np.uint8)
