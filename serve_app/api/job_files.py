"""Names of the files of uploads, and how a spooled recording becomes a file of a job."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from serve_app.api.spool import SpoolFile
from serve_app.jobs.ports import JobFiles
from serve_app.jobs.records import ResumableUpload

PART_BYTES = 32 * 2**20
"""Largest part of an upload: what a lost connection costs, and what is spooled at once."""


async def put_spool(files: JobFiles, name: str, spool: SpoolFile) -> None:
    """Stores what was spooled. A cancellation waits until that is done.

    A spool file has no name, so its descriptor stands for it, and must stay open meanwhile.

    Raises:
        StoreUnavailable: the storage does not answer.
        StorageFull: it is full.
    """
    descriptor = spool.file.fileno()
    os.lseek(descriptor, 0, os.SEEK_SET)
    storing = asyncio.create_task(files.put_file(name, Path(f"/dev/fd/{descriptor}")))
    try:
        await asyncio.shield(storing)
    except asyncio.CancelledError:
        await asyncio.wait({storing})
        raise


def part_names(upload: ResumableUpload) -> tuple[str, ...]:
    """Returns the names of an upload's files, in order."""
    offset = 0
    names = []
    for num_bytes in upload.parts:
        names.append(part_name(upload.id, offset, num_bytes))
        offset += num_bytes
    return tuple(names)


def part_name(upload_id: str, offset_bytes: int, num_bytes: int) -> str:
    """Returns the name of a part.

    Two requests that store a part at the same offset do not overwrite each other's unless they
    are as long, and then their bytes are the same.
    """
    return f"{upload_id}/part-{offset_bytes:020}-{num_bytes}"
