"""The directory or bucket that a job writes to, with writes that are whole or absent."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

import fsspec
from fsspec.spec import AbstractFileSystem

from serve_app.batch.records import FileInfo

_TEMPORARY = ".part-"
"""How the names of files begin that are not complete yet."""

# A put shows the whole object or the one before; there is nothing to rename.
_OBJECT_STORES = frozenset(
    {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci", "obs", "tos", "memory"}
)
_VERSION_KEYS = (
    "ETag", "etag", "md5Hash", "content_md5", "checksum", "mtime", "LastModified",
    "last_modified", "updated", "modified", "created",
)  # fmt: skip


class Files(Protocol):
    """A tree of small files; paths are relative to its root, with slashes."""

    def put(self, path: str, content: bytes) -> None:
        """Makes the file's content this; who reads sees all of it or what was before."""

    def read(self, path: str, max_bytes: int | None = None) -> bytes | None:
        """Returns the file's beginning, or all of it; None if there is no such file."""

    def remove(self, path: str) -> bool:
        """Removes the file; False if there was none."""

    def entries(self, folder: str) -> dict[str, FileInfo]:
        """Returns the files below a folder, none that is incomplete."""

    def sweep(self, older_than_s: float) -> int:
        """Removes what writers that died left behind; returns the number of files."""


def open_files(url: str) -> Files:
    """Opens a path or any URL that fsspec knows; nothing is created yet.

    Raises:
        ImportError: the URL's scheme needs a package that is not installed.
        ValueError: there is no such scheme.
    """
    filesystem, root = fsspec.core.url_to_fs(url)
    protocols = _protocols(filesystem)
    if "file" in protocols or "local" in protocols:
        return LocalFiles(Path(root))
    return RemoteFiles(filesystem, root, renames=not protocols & _OBJECT_STORES)


def info_of(details: Mapping[str, object]) -> FileInfo:
    """Returns what one of fsspec's `info` dictionaries says about a content."""
    size = details.get("size")
    version = next((details[key] for key in _VERSION_KEYS if details.get(key) is not None), None)
    return FileInfo(
        int(size) if isinstance(size, int | float) else None,
        None if version is None else str(version),
    )


class LocalFiles:
    """A directory. A file is written under another name, synced and renamed.

    Source: POSIX rename() replaces its target atomically; fsync of the file before and of
    its directory after make that hold when the power fails.
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
        _sync_directory(target.parent)

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

    def entries(self, folder: str) -> dict[str, FileInfo]:
        found: dict[str, FileInfo] = {}
        for entry in _walk(self._root / folder):
            if entry.name.startswith(_TEMPORARY):
                continue
            try:
                state = entry.stat()
            except FileNotFoundError:
                continue
            # A rename always brings another inode, even within a clock tick.
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
    """A bucket's prefix, or a directory on another machine.

    Args:
        filesystem: fsspec's.
        root: path within it.
        renames: its writes can be seen half done, so that a file needs another name first.
    """

    def __init__(self, filesystem: AbstractFileSystem, root: str, renames: bool) -> None:
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self._renames = renames

    def put(self, path: str, content: bytes) -> None:
        target = f"{self._root}/{path}"
        if not self._renames:
            self._filesystem.pipe_file(target, content)
            return
        parent, _, _ = target.rpartition("/")
        self._filesystem.makedirs(parent, exist_ok=True)
        temporary = f"{parent}/{_TEMPORARY}{uuid.uuid4().hex}"
        self._filesystem.pipe_file(temporary, content)
        # Not every server's rename replaces. Between the two there is no file, never half.
        self.remove(path)
        self._filesystem.mv(temporary, target)

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

    def entries(self, folder: str) -> dict[str, FileInfo]:
        return {
            path: info_of(details)
            for path, details in self._find(folder)
            if not path.rpartition("/")[2].startswith(_TEMPORARY)
        }

    def sweep(self, older_than_s: float) -> int:
        if not self._renames:
            return 0
        num_removed = 0
        for path, details in self._find(""):
            if path.rpartition("/")[2].startswith(_TEMPORARY):
                changed_s = details.get("mtime")
                if isinstance(changed_s, int | float) and time.time() - changed_s < older_than_s:
                    continue
                num_removed += self.remove(path)
        return num_removed

    def _find(self, folder: str) -> list[tuple[str, Mapping[str, object]]]:
        # What another process wrote must be seen, so listings are not kept.
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


def _protocols(filesystem: AbstractFileSystem) -> frozenset[str]:
    protocol = filesystem.protocol
    return frozenset({protocol} if isinstance(protocol, str) else protocol)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
