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
from serve_app.batch.storage import filesystem_of, info_of
from serve_app.batch.uris import plain_text, plain_uri
from serve_app.core.errors import ManifestError

_JSONL_SUFFIXES = (".jsonl", ".ndjson")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_MAX_PROBLEMS = 20
_DIGEST_CHARACTERS = 16


def read_items(source: str) -> Iterator[BatchItem]:
    """Returns the recordings that a source names, in its order.

    All of a manifest is checked before the first item comes, and read again then: memory
    grows by the ids only, not by rows.

    Args:
        source: a `.jsonl`, `.ndjson`, `.csv` or `.tsv` manifest, a directory, a glob, a
            bucket's prefix or a single recording; a path or a URL of one of `uris.PROTOCOLS`.

    Raises:
        ManifestError: there is nothing, or rows cannot be used; the message names them.
    """
    try:
        filesystem, path = filesystem_of(source)
        if filesystem.isfile(path):
            if _suffix(path) in (*_JSONL_SUFFIXES, *_DELIMITERS):
                return _from_manifest(source, filesystem, path)
            return iter([_listed(filesystem, path, path.rpartition("/")[0], filesystem.info(path))])
        return iter(list_recordings(source))
    except (ImportError, ValueError, OSError) as error:
        raise ManifestError(
            f"{plain_uri(source)}: {plain_text(str(error)) or type(error).__name__}"
        ) from None


def list_recordings(source: str) -> list[BatchItem]:
    """Returns the recordings in a directory, below a prefix or that a glob matches.

    Ids are paths relative to the directory, or to what comes before the first wildcard.

    Raises:
        ManifestError: there are none.
    """
    filesystem, path = filesystem_of(source)
    if filesystem.isdir(path):
        root, found = path.rstrip("/"), filesystem.find(path, detail=True)
        found = _picked(filesystem, found, len(root))
    elif glob.has_magic(path):
        root = path[: _first_magic(path)].rpartition("/")[0]
        found = filesystem.glob(path, detail=True)
    else:
        root, found = path.rpartition("/")[0], _below_prefix(filesystem, path)
    files = {name: info for name, info in found.items() if info.get("type") != "directory"}
    if not files:
        raise ManifestError(f"{plain_uri(source)}: no recordings found")
    listed = [_listed(filesystem, name, root, files[name]) for name in sorted(files)]
    return list(_with_ids_of_their_own(listed))


def _below_prefix(filesystem: AbstractFileSystem, path: str) -> dict[str, Mapping[str, object]]:
    """What a bucket calls a prefix need not end at a slash."""
    found: dict[str, Mapping[str, object]] = {}
    if "file" in filesystem.protocol:
        return found
    for name, info in filesystem.glob(f"{glob.escape(path)}*", detail=True).items():
        if info.get("type") == "directory":
            found.update(filesystem.find(name, detail=True))
        else:
            found[name] = info
    start = len(path.rpartition("/")[0])
    return _picked(filesystem, found, start)


def _picked(
    filesystem: AbstractFileSystem, found: Mapping[str, Mapping[str, object]], start: int
) -> dict[str, Mapping[str, object]]:
    """Returns what is named like a recording below the first `start` characters."""
    return {
        name: info
        for name, info in found.items()
        if is_recording_name(name[start:].lstrip("/")) and _looks_right(filesystem, name, info)
    }


def _looks_right(filesystem: AbstractFileSystem, name: str, info: Mapping[str, object]) -> bool:
    """Looks into a local file that may be source code; in a bucket that would be a request each."""
    if info.get("type") == "directory" or not needs_look(name):
        return True
    if "file" not in filesystem.protocol:
        return False
    try:
        with filesystem.open(name, "rb") as file:
            return is_transport_stream(file.read(TRANSPORT_STREAM_HEAD_BYTES))
    except OSError:
        # Whoever transcribes it says what is wrong.
        return True


def _listed(
    filesystem: AbstractFileSystem, path: str, root: str, info: Mapping[str, object]
) -> BatchItem:
    relative = path[len(root) :].lstrip("/") if path.startswith(root) else path
    recording_id = "".join(map(_readable, relative))
    local = "file" in filesystem.protocol
    uri = path if local else filesystem.unstrip_protocol(path)
    return BatchItem(recording_id, uri, file=info_of(info))


def _readable(character: str) -> str:
    """A name that is not UTF-8, or has control characters, still needs an id without."""
    if "\udc80" <= character <= "\udcff":
        return f"%{ord(character) - 0xDC00:02X}"
    return f"%{ord(character):02X}" if unicodedata.category(character) == "Cc" else character


def _with_ids_of_their_own(items: Iterable[BatchItem]) -> Iterator[BatchItem]:
    """A name that is not UTF-8 can be spelled as another one is; the later one gets a digest."""
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

    _check(source, rows(), root)
    return (item for row in rows() if isinstance(item := _item(row, root), BatchItem))


def _item(row: Row | RowProblem, root: str) -> BatchItem | RowProblem:
    return row if isinstance(row, RowProblem) else item_of(row, root)


def _check(source: str, rows: Iterable[Row | RowProblem], root: str) -> None:
    problems: list[str] = []
    num_problems = 0
    line_of: dict[str, int] = {}
    for row in rows:
        item = _item(row, root)
        if isinstance(item, BatchItem):
            first = line_of.setdefault(item.id, row.line)
            if first == row.line:
                continue
            item = RowProblem(row.line, f"id {item.id!r} is that of line {first} already")
        num_problems += 1
        if len(problems) < _MAX_PROBLEMS:
            problems.append(f"line {item.line}: {plain_text(item.problem)}")
    if num_problems > len(problems):
        problems.append(f"and {num_problems - len(problems)} more")
    if problems:
        raise ManifestError("\n  ".join([f"{plain_uri(source)} cannot be used:", *problems]))
    if not line_of:
        raise ManifestError(f"{plain_uri(source)}: no recordings in it")


def _suffix(path: str) -> str:
    return posixpath.splitext(path)[1].lower()


def _first_magic(path: str) -> int:
    return min(at for at in (path.find(mark) for mark in "*?[") if at >= 0)
