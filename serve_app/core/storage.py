"""What all readers and writers of files and buckets have in common."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from serve_app.core.errors import StorageFull

PROTOCOLS: Mapping[str, str] = {
    "file": "file",
    "local": "file",
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "gcs": "gs",
    "az": "abfs",
    "abfs": "abfs",
    "abfss": "abfs",
    # In the memory of this process; used by tests.
    "memory": "memory",
}
"""Supported URL schemes, and fsspec's name for each.

fsspec has dozens more. Some run code from a file (reference); others let the author of a manifest
read local files or any host in the network (chains, http, ftp, github, smb). Hence all others
are rejected.
"""

FULL_RETRY_S = 30.0
"""When to try again after a full disk."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_STORAGE_PACKAGES = frozenset(
    ("aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "s3fs")
)


def is_storage_error(error: BaseException) -> bool:
    """Returns whether an error comes from the system's files or from a package for buckets."""
    package = type(error).__module__.partition(".")[0]
    return package in _STORAGE_PACKAGES or isinstance(error, OSError)


def storage_full_or(error: OSError) -> Exception:
    """Returns the error of a local disk as `StorageFull` if the disk is full, else as it is."""
    return StorageFull(FULL_RETRY_S) if error.errno in _FULL else error


def sync_directory(directory: Path) -> None:
    """Makes names that were added to a directory survive a power failure."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
