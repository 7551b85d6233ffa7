"""The directory or bucket that a job writes to, with atomic writes."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from serve_app.batch.records import FileInfo
from serve_app.batch.uris import parse_uri, plain_text
from serve_app.core.storage import is_storage_error, sync_directory

_TEMPORARY = ".part-"
"""Prefix of the names of incomplete files."""

_VERSION_KEYS = (
    "ETag", "etag", "md5Hash", "content_md5", "checksum", "mtime", "LastModified",
    "last_modified", "updated", "modified", "created",
)  # fmt: skip


class Files(Protocol):
    """A tree of small files; paths are relative to its root, with slashes."""

    def put(self, path: str, content: bytes) -> None:
        """Replaces the content of a file; readers see the old or the new content as a whole."""

    def read(self, path: str, max_bytes: int | None = None) -> bytes | None:
        """Returns the content of a file, or its beginning; None if it does not exist."""

    def remove(self, path: str) -> bool:
        """Removes a file; returns False if it did not exist."""

    def list_files(self, folder: str) -> dict[str, FileInfo]:
        """Returns the complete files below a folder."""

    def sweep(self, older_than_s: float) -> int:
        """Removes incomplete files of dead writers; returns their number."""


def filesystem_of(uri: str) -> tuple[AbstractFileSystem, str]:
    """Returns the file system of a path or URL, and the path within it.

    Jobs open all paths and URLs here, never with fsspec's functions for URLs: those follow
    chains and open any protocol.

    Raises:
        UnusableUri: see `parse_uri`.
        ImportError: the protocol needs a package that is not installed.
    """
    location = parse_uri(uri)
    kind = fsspec.get_filesystem_class(location.protocol)
    # The account of Azure is part of the URL; options from an S3 URL are ignored.
    options = kind._get_kwargs_from_urls(location.uri) if location.protocol == "abfs" else {}
    return kind(**options), str(kind._strip_protocol(location.uri))


def open_files(url: str) -> Files:
    """Opens a path or a URL; creates nothing.

    Raises:
        UnusableUri: see `parse_uri`.
        ImportError: the URL's protocol needs a package that is not installed.
    """
    filesystem, root = filesystem_of(url)
    if isinstance(filesystem, LocalFileSystem):
        return LocalFiles(Path(root))
    return RemoteFiles(filesystem, root)


def storage_problem(error: BaseException) -> str | None:
    """Returns what is wrong with the storage as one sentence; None for any other error."""
    seen: BaseException | None = error
    while seen is not None:
        if is_storage_error(seen):
            lines = plain_text(str(seen)).split("\n")
            return f"the storage failed: {lines[0] or type(seen).__name__}"
        seen = seen.__cause__
    return None


def info_of(details: Mapping[str, object]) -> FileInfo:
    """Returns size and version from an `info` dictionary of fsspec."""
    size = details.get("size")
    version = next((details[key] for key in _VERSION_KEYS if details.get(key) is not None), None)
    return FileInfo(
        int(size) if isinstance(size, int | float) else None,
        None if version is None else str(version),
    )


class LocalFiles:
    """A directory. Files are written under a temporary name, synced and renamed.

    Source: POSIX rename() replaces its target atomically; fsync of the file before, and of
    its directory after, make this hold over a power failure.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def put(self, path: str, content: bytes) -> None:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(target.parent)

    def read(self, path: str, max_bytes: int | None = None) -> bytes | None:
        try:
            with (self._root / path).open("rb") as file:
                return file.read(-1 if max_bytes is None else max_bytes)
        except FileNotFoundError:
            return None

    def remove(self, path: str) -> bool:
        try:
            (self._root / path).unlink()
        except FileNotFoundError:
            return False
        return True

    def list_files(self, folder: str) -> dict[str, FileInfo]:
        found: dict[str, FileInfo] = {}
        for entry in _walk(self._root / folder):
            if entry.name.startswith(_TEMPORARY):
                continue
            try:
                state = entry.stat()
            except FileNotFoundError:
                continue
            # A rename always changes the inode, even within a clock tick.
            version = f"{state.st_mtime_ns}-{state.st_ino}"
            path = os.path.relpath(entry.path, self._root).replace(os.sep, "/")
            found[path] = FileInfo(state.st_size, version)
        return found

    def sweep(self, older_than_s: float) -> int:
        num_removed = 0
        for entry in list(_walk(self._root)):
            if not entry.name.startswith(_TEMPORARY):
                continue
            try:
                if time.time() - entry.stat().st_mtime >= older_than_s:
                    os.unlink(entry.path)
                    num_removed += 1
            except FileNotFoundError:
                continue
        return num_removed


class RemoteFiles:
    """A prefix of a bucket, whose puts are atomic.

    Args:
        filesystem: fsspec's.
        root: path within it.
    """

    def __init__(self, filesystem: AbstractFileSystem, root: str) -> None:
        self._filesystem = filesystem
        self._root = root.rstrip("/")

    def put(self, path: str, content: bytes) -> None:
        self._filesystem.pipe_file(f"{self._root}/{path}", content)

    def read(self, path: str, max_bytes: int | None = None) -> bytes | None:
        try:
            content = self._filesystem.cat_file(
                f"{self._root}/{path}", start=None if max_bytes is None else 0, end=max_bytes
            )
        except FileNotFoundError:
            return None
        return cast(bytes, content)

    def remove(self, path: str) -> bool:
        try:
            self._filesystem.rm_file(f"{self._root}/{path}")
        except FileNotFoundError:
            return False
        return True

    def list_files(self, folder: str) -> dict[str, FileInfo]:
        return {path: info_of(details) for path, details in self._find(folder)}

    def sweep(self, older_than_s: float) -> int:
        return 0

    def _find(self, folder: str) -> list[tuple[str, Mapping[str, object]]]:
        # Other processes write as well, so cached listings are dropped.
        self._filesystem.invalidate_cache()
        try:
            found = self._filesystem.find(f"{self._root}/{folder}".rstrip("/"), detail=True)
        except FileNotFoundError:
            return []
        prefix = self._filesystem._strip_protocol(self._root)
        return [(str(path)[len(prefix) + 1 :], details) for path, details in found.items()]


def _walk(folder: str | Path) -> list[os.DirEntry[str]]:
    found: list[os.DirEntry[str]] = []
    pending = [str(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        found.append(entry)
        except FileNotFoundError:
            continue
    return found
