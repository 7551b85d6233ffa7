"""The recordings of a job: from a manifest, a directory, a glob or a bucket's prefix."""

from __future__ import annotations

import glob
import hashlib
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from fsspec.spec import AbstractFileSystem

from serve_app.audio.containers import (
    TRANSPORT_STREAM_HEAD_BYTES,
    is_recording_name,
    is_transport_stream,
    needs_look,
)
from serve_app.batch.manifest_rows import Row, RowProblem, csv_rows, item_of, jsonl_rows
from serve_app.batch.records import BatchItem
from serve_app.batch.storage import filesystem_of, info_of, storage_problem
from serve_app.batch.uris import plain_text, plain_uri
from serve_app.core.errors import ManifestError

_JSONL_SUFFIXES = (".jsonl", ".ndjson")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_MAX_PROBLEMS = 20
_DIGEST_CHARACTERS = 16


def read_items(source: str) -> Iterator[BatchItem]:
    """Returns the recordings of a source, in its order.

    A manifest is read twice: first to check it as a whole, then to yield its items, so that
    memory grows with the ids only.

    Args:
        source: a `.jsonl`, `.ndjson`, `.csv` or `.tsv` manifest, a directory, a glob, a
            bucket's prefix or a single recording; a path or a URL of one of `uris.PROTOCOLS`.

    Raises:
        ManifestError: there are no recordings, or rows are invalid; the message lists them.
    """
    try:
        filesystem, path = filesystem_of(source)
        if filesystem.isfile(path):
            if _suffix(path) in (*_JSONL_SUFFIXES, *_DELIMITERS):
                return _from_manifest(source, filesystem, path)
            return iter(
                [
                    _item_from_listing(
                        filesystem, path, path.rpartition("/")[0], filesystem.info(path)
                    )
                ]
            )
        return iter(list_recordings(source))
    except ManifestError:
        raise
    except Exception as error:
        problem = storage_problem(error)
        if problem is None and not isinstance(error, ImportError | ValueError):
            raise
        reason = problem or plain_text(str(error)) or type(error).__name__
        raise ManifestError(f"{plain_uri(source)}: {reason}") from None


def list_recordings(source: str) -> list[BatchItem]:
    """Returns the recordings in a directory, below a prefix or matched by a glob.

    Ids are paths relative to the directory, or to the folder before the first wildcard.

    Raises:
        ManifestError: there are none.
    """
    filesystem, path = filesystem_of(source)
    if filesystem.isdir(path):
        root, found = path.rstrip("/"), filesystem.find(path, detail=True)
        found = _recordings_among(filesystem, found, len(root))
    elif glob.has_magic(path):
        root = path[: _first_wildcard(path)].rpartition("/")[0]
        found = filesystem.glob(path, detail=True)
    else:
        root, found = path.rpartition("/")[0], _below_prefix(filesystem, path)
    files = {name: info for name, info in found.items() if info.get("type") != "directory"}
    if not files:
        is_missing = not glob.has_magic(path) and not filesystem.exists(path)
        raise ManifestError(
            f"{plain_uri(source)}: {'it does not exist' if is_missing else 'no recordings found'}"
        )
    listed = [_item_from_listing(filesystem, name, root, files[name]) for name in sorted(files)]
    return list(_with_unique_ids(listed))


def _below_prefix(filesystem: AbstractFileSystem, path: str) -> dict[str, Mapping[str, object]]:
    """Lists a bucket's prefix, which need not end at a slash."""
    found: dict[str, Mapping[str, object]] = {}
    if "file" in filesystem.protocol:
        return found
    for name, info in filesystem.glob(f"{glob.escape(path)}*", detail=True).items():
        if info.get("type") == "directory":
            found.update(filesystem.find(name, detail=True))
        else:
            found[name] = info
    start = len(path.rpartition("/")[0])
    return _recordings_among(filesystem, found, start)


def _recordings_among(
    filesystem: AbstractFileSystem, found: Mapping[str, Mapping[str, object]], start: int
) -> dict[str, Mapping[str, object]]:
    """Returns the files whose names, from `start` on, are those of recordings."""
    return {
        name: info
        for name, info in found.items()
        if is_recording_name(name[start:].lstrip("/")) and _is_recording(filesystem, name, info)
    }


def _is_recording(filesystem: AbstractFileSystem, name: str, info: Mapping[str, object]) -> bool:
    """Checks the content of a local .ts file, which may be TypeScript; a bucket's is skipped."""
    if info.get("type") == "directory" or not needs_look(name):
        return True
    if "file" not in filesystem.protocol:
        return False
    try:
        with filesystem.open(name, "rb") as file:
            return is_transport_stream(file.read(TRANSPORT_STREAM_HEAD_BYTES))
    except OSError:
        # The error is reported when the recording is processed.
        return True


def _item_from_listing(
    filesystem: AbstractFileSystem, path: str, root: str, info: Mapping[str, object]
) -> BatchItem:
    relative = path[len(root) :].lstrip("/") if path.startswith(root) else path
    recording_id = "".join(map(_escaped, relative))
    local = "file" in filesystem.protocol
    uri = path if local else filesystem.unstrip_protocol(path)
    return BatchItem(recording_id, uri, file=info_of(info))


def _escaped(character: str) -> str:
    """Percent-encodes bytes that are not UTF-8, and control characters, for an id."""
    if "\udc80" <= character <= "\udcff":
        return f"%{ord(character) - 0xDC00:02X}"
    return f"%{ord(character):02X}" if unicodedata.category(character) == "Cc" else character


def _with_unique_ids(items: Iterable[BatchItem]) -> Iterator[BatchItem]:
    """Appends a digest to an id that percent-encoding made equal to an earlier one."""
    taken: set[str] = set()
    for item in items:
        recording_id = item.id
        if recording_id in taken:
            digest = hashlib.sha256(item.uri.encode("utf-8", "surrogateescape")).hexdigest()
            recording_id = f"{item.id}~{digest[:_DIGEST_CHARACTERS]}"
        taken.add(recording_id)
        yield replace(item, id=recording_id)


def _from_manifest(source: str, filesystem: AbstractFileSystem, path: str) -> Iterator[BatchItem]:
    root = path.rpartition("/")[0]
    if "file" not in filesystem.protocol:
        root = filesystem.unstrip_protocol(root)

    def rows() -> Iterator[Row | RowProblem]:
        with filesystem.open(path, "rb") as lines:
            if _suffix(path) in _JSONL_SUFFIXES:
                yield from jsonl_rows(lines)
            else:
                yield from csv_rows(lines, _DELIMITERS[_suffix(path)])

    _check_rows(source, rows(), root)
    return (item for row in rows() if isinstance(item := _item(row, root), BatchItem))


def _item(row: Row | RowProblem, root: str) -> BatchItem | RowProblem:
    return row if isinstance(row, RowProblem) else item_of(row, root)


def _check_rows(source: str, rows: Iterable[Row | RowProblem], root: str) -> None:
    problems: list[str] = []
    num_problems = 0
    line_of: dict[str, int] = {}
    for row in rows:
        item = _item(row, root)
        if isinstance(item, BatchItem):
            first = line_of.setdefault(item.id, row.line)
            if first == row.line:
                continue
            item = RowProblem(row.line, f"id {item.id!r} is already used in line {first}")
        num_problems += 1
        if len(problems) < _MAX_PROBLEMS:
            problems.append(f"line {item.line}: {plain_text(item.problem)}")
    if num_problems > len(problems):
        problems.append(f"and {num_problems - len(problems)} more")
    if problems:
        raise ManifestError("\n  ".join([f"{plain_uri(source)} is invalid:", *problems]))
    if not line_of:
        raise ManifestError(f"{plain_uri(source)}: it names no recordings")


def _suffix(path: str) -> str:
    return posixpath.splitext(path)[1].lower()


def _first_wildcard(path: str) -> int:
    return min(at for at in (path.find(mark) for mark in "*?[") if at >= 0)
