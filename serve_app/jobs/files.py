"""The files of jobs: recordings, requests, checkpoints and results."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import re
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, ParamSpec, Protocol, TypeVar, cast

import fsspec
from fsspec.spec import AbstractFileSystem

from serve_app.core.errors import ConfigurationError, StorageFull
from serve_app.core.job_errors import StoreUnavailable
from serve_app.core.storage import (
    FULL_RETRY_S,
    PROTOCOLS,
    is_storage_error,
    sync_directory,
)
from serve_app.jobs.ports import JobFiles

_P = ParamSpec("_P")
_T = TypeVar("_T")

_ID = re.compile(r"(job|upl)_[A-Za-z0-9_-]{1,64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")
_ID_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_TEMPORARY = ".part-"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FULL_CODES = ("QuotaExceeded", "StorageFull", "InsufficientStorage")
_NUM_THREADS = 8
_BLOCK_BYTES = 16 * 2**20


class _Storage(Protocol):
    """A tree of files two levels deep, whose methods block."""

    def put_bytes(self, name: str, content: bytes) -> None: ...
    def put_file(self, name: str, path: Path) -> None: ...
    def get_bytes(self, name: str) -> bytes: ...
    def append_to(self, name: str, target: BinaryIO) -> None: ...
    def names(self, job_id: str) -> Sequence[str]: ...
    def delete(self, name: str) -> None: ...
    def delete_all(self, job_id: str) -> None: ...
    def ages(self) -> Iterator[Mapping[str, float]]:
        """Yields for each id the time in s since its newest file was written."""


class FsspecFiles:
    """The files in a local directory or an object store.

    Args:
        storage: a path, or a URL of fsspec.

    Raises:
        ConfigurationError: the URL is not supported, its package is not installed, or the
            directory cannot be created.
    """

    def __init__(self, storage: str) -> None:
        self._storage = _open_storage(storage)
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="job-files")

    async def put_bytes(self, name: str, content: bytes) -> None:
        await self._run(self._storage.put_bytes, _checked(name), content)

    async def put_file(self, name: str, path: Path) -> None:
        await self._run(self._storage.put_file, _checked(name), path)

    async def get_bytes(self, name: str) -> bytes:
        return await self._run(self._storage.get_bytes, _checked(name))

    async def get_to(self, names: Sequence[str], path: Path) -> None:
        def get() -> None:
            with path.open("wb") as target:
                for name in names:
                    self._storage.append_to(_checked(name), target)

        await self._run(get)

    async def names(self, job_id: str) -> Sequence[str]:
        return await self._run(self._storage.names, _checked_id(job_id))

    async def delete(self, name: str) -> None:
        await self._run(self._storage.delete, _checked(name))

    async def delete_all(self, job_id: str) -> None:
        await self._run(self._storage.delete_all, _checked_id(job_id))

    async def ids(self, older_than: timedelta) -> AsyncIterator[str]:
        pages = self._storage.ages()
        limit_s = older_than.total_seconds()
        while (page := await self._run(next, pages, None)) is not None:
            for job_id, age_s in page.items():
                if age_s >= limit_s:
                    yield job_id

    async def _run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        call = functools.partial(function, *args, **kwargs)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except Exception as error:
            translated = _translated(error)
            if translated is None:
                raise
            raise translated from error


def _translated(error: Exception) -> Exception | None:
    """Returns what the storage's error means to the service; None to leave it as it is."""
    if isinstance(error, FileNotFoundError):
        return StoreUnavailable() if _is_bucket_missing(error) else None
    if isinstance(error, OSError) and error.errno in _FULL:
        return StorageFull(FULL_RETRY_S)
    if not is_storage_error(error):
        return None
    if any(code in str(error) for code in _FULL_CODES):
        return StorageFull(FULL_RETRY_S)
    return StoreUnavailable()


def _checked(name: str) -> str:
    """Returns a file's name; no other leads out of its job's folder.

    Raises:
        ValueError: it is not one.
    """
    job_id, _, file_name = name.partition("/")
    if not _FILE_NAME.fullmatch(file_name):
        raise ValueError("a file of a job is named ID/NAME")
    return f"{_checked_id(job_id)}/{file_name}"


def _checked_id(job_id: str) -> str:
    """Raises:
    ValueError: it is not the id of a job or an upload.
    """
    if not _ID.fullmatch(job_id):
        raise ValueError("the id of a job or an upload begins with job_ or upl_")
    return job_id


def _open_storage(storage: str) -> _Storage:
    scheme, separator, rest = storage.partition("://")
    if not separator or scheme == "file":
        path = Path(rest if separator else storage).expanduser().absolute()
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"jobs.storage: the directory {path} cannot be created: {error.strerror}"
            ) from None
        return _Directory(path)
    protocol = PROTOCOLS.get(scheme.lower())
    if protocol in (None, "file") or "::" in storage or ("@" in rest and protocol != "abfs"):
        raise ConfigurationError(
            "jobs.storage must be a path or a URL such as s3://bucket/jobs; credentials belong in "
            "the environment"
        )
    try:
        kind = fsspec.get_filesystem_class(protocol)
        options: dict[str, object] = {"use_listings_cache": False, "skip_instance_cache": True}
        if protocol == "abfs":
            options |= kind._get_kwargs_from_urls(storage)
        if protocol == "memory":
            options = {}
        if protocol == "s3":
            options["config_kwargs"] = {"connect_timeout": 5, "read_timeout": 60}
            options["max_concurrency"] = 4
        filesystem: AbstractFileSystem = kind(**options)
    except ImportError as error:
        raise ConfigurationError(
            f"jobs.storage: {scheme}:// needs a package that is not installed: {error}"
        ) from None
    return _Bucket(filesystem, str(kind._strip_protocol(f"{scheme}://{rest}")).rstrip("/"))


class _Directory:
    """A directory. Files are written under a temporary name, synced and renamed.

    Source: POSIX rename() replaces its target atomically; fsync of the file before, and of
    its directory after, make this hold over a power failure.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def put_bytes(self, name: str, content: bytes) -> None:
        self._put(name, lambda file: file.write(content))

    def put_file(self, name: str, path: Path) -> None:
        with path.open("rb") as source:
            self._put(name, lambda file: shutil.copyfileobj(source, file, _BLOCK_BYTES))

    def get_bytes(self, name: str) -> bytes:
        self._check_root()
        return (self._root / name).read_bytes()

    def append_to(self, name: str, target: BinaryIO) -> None:
        self._check_root()
        with (self._root / name).open("rb") as source:
            shutil.copyfileobj(source, target, _BLOCK_BYTES)

    def names(self, job_id: str) -> Sequence[str]:
        self._check_root()
        return sorted(f"{job_id}/{name}" for name in self._files(job_id))

    def delete(self, name: str) -> None:
        self._check_root()
        path = self._root / name
        path.unlink(missing_ok=True)
        _remove_if_empty(path.parent)

    def delete_all(self, job_id: str) -> None:
        self._check_root()
        try:
            shutil.rmtree(self._root / job_id)
        except FileNotFoundError:
            return

    def ages(self) -> Iterator[Mapping[str, float]]:
        self._check_root()
        now = time.time()
        for entry in list(os.scandir(self._root)):
            if not _ID.fullmatch(entry.name) or not entry.is_dir(follow_symlinks=False):
                continue
            times = self._times(Path(entry.path))
            if times:
                yield {entry.name: now - max(times)}

    def _put(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        target = self._root / name
        temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
        try:
            with self._create(temporary) as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            _remove_if_empty(target.parent)
            raise
        sync_directory(target.parent)

    def _create(self, path: Path) -> BinaryIO:
        self._check_root()
        while True:
            try:
                path.parent.mkdir(mode=0o700)
            except FileExistsError:
                pass
            else:
                sync_directory(self._root)
            try:
                return path.open("xb")
            except FileNotFoundError:
                # `delete` removed the folder, empty until now.
                self._check_root()

    def _check_root(self) -> None:
        # A directory whose volume is gone is not an empty one.
        if not self._root.is_dir():
            raise StoreUnavailable

    def _files(self, job_id: str) -> Sequence[str]:
        try:
            found = os.listdir(self._root / job_id)
        except FileNotFoundError:
            return []
        return [name for name in found if not name.startswith(_TEMPORARY)]

    def _times(self, folder: Path) -> Sequence[float]:
        try:
            times = [entry.stat(follow_symlinks=False).st_mtime for entry in os.scandir(folder)]
            times.append(folder.stat().st_mtime)
        except FileNotFoundError:
            # It is being removed, or written to.
            return []
        return times


class _Bucket:
    """A prefix of an object store, whose puts are whole or nothing.

    Args:
        filesystem: fsspec's, without caches.
        root: path within it.
    """

    def __init__(self, filesystem: AbstractFileSystem, root: str) -> None:
        self._filesystem = filesystem
        self._root = root

    def put_bytes(self, name: str, content: bytes) -> None:
        self._filesystem.pipe_file(self._path(name), content)

    def put_file(self, name: str, path: Path) -> None:
        options = {"chunksize": _BLOCK_BYTES} if self._is_sharded else {}
        self._filesystem.put_file(str(path), self._path(name), **options)

    def get_bytes(self, name: str) -> bytes:
        return cast(bytes, self._filesystem.cat_file(self._path(name)))

    def append_to(self, name: str, target: BinaryIO) -> None:
        with self._filesystem.open(
            self._path(name), "rb", block_size=_BLOCK_BYTES, cache_type="readahead"
        ) as source:
            shutil.copyfileobj(source, target, _BLOCK_BYTES)

    def names(self, job_id: str) -> Sequence[str]:
        return sorted(self._find(f"{job_id}/"))

    def delete(self, name: str) -> None:
        try:
            self._filesystem.rm_file(self._path(name))
        except FileNotFoundError:
            return

    def delete_all(self, job_id: str) -> None:
        names = self.names(job_id)
        if names:
            self._filesystem.rm([self._path(name) for name in names])
        # A removal of many does not say which ones failed.
        if self.names(job_id):
            raise StoreUnavailable

    def ages(self) -> Iterator[Mapping[str, float]]:
        now = time.time()
        for prefix in self._prefixes():
            newest: dict[str, float] = {}
            for name, written_at in self._find(prefix).items():
                job_id = name.partition("/")[0]
                if _ID.fullmatch(job_id):
                    newest[job_id] = max(newest.get(job_id, written_at), written_at)
            yield {job_id: now - written_at for job_id, written_at in newest.items()}

    @property
    def _is_sharded(self) -> bool:
        return "s3" in self._filesystem.protocol

    def _prefixes(self) -> Sequence[str]:
        """Returns beginnings of all ids. A listing of one of them fits into memory."""
        if not self._is_sharded:
            return [""]
        return [kind + first for kind in ("job_", "upl_") for first in _ID_CHARACTERS]

    def _find(self, prefix: str) -> Mapping[str, float]:
        """Returns the names that begin like this, and when they were written."""
        # Other processes write as well.
        self._filesystem.invalidate_cache()
        folder, _, rest = prefix.rpartition("/")
        options = {"prefix": rest} if self._is_sharded and rest else {}
        try:
            found = self._filesystem.find(
                f"{self._root}/{folder}".rstrip("/"), detail=True, **options
            )
        except FileNotFoundError as error:
            if _is_bucket_missing(error):
                raise
            return {}
        start = len(self._root) + 1
        return {str(path)[start:]: _written_at(info) for path, info in found.items()}

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _written_at(info: Mapping[str, object]) -> float:
    """Returns the time in Unix seconds from an `info` dictionary of fsspec."""
    for key in ("LastModified", "last_modified", "mtime", "updated", "created"):
        value = info.get(key)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, int | float):
            return float(value)
    # Nothing is old whose age nobody knows.
    return time.time()


def _is_bucket_missing(error: FileNotFoundError) -> bool:
    return "NoSuchBucket" in f"{error}{error.__cause__}"


def _remove_if_empty(directory: Path) -> None:
    # It fails if files are left, or somebody else was faster.
    with suppress(OSError):
        directory.rmdir()


_: type[JobFiles] = FsspecFiles
