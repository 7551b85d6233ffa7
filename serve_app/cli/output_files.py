"""Which recordings a command line means, and where their transcripts go."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from serve_app.audio.containers import (
    TRANSPORT_STREAM_HEAD_BYTES,
    is_recording_name,
    is_transport_stream,
    needs_look,
)


@dataclass(frozen=True, slots=True)
class FoundRecording:
    """A recording that was named.

    Attributes:
        path: where it is.
        place: where it is below the directory that was named; its name if it was named itself.
    """

    path: Path
    place: Path


def find_recordings(patterns: Sequence[str]) -> Iterator[FoundRecording]:
    """Yields each file once: those named, those of directories, those of glob patterns.

    A name that is no pattern is passed on whether or not there is such a file. Hidden files of
    directories, those that macOS makes beside others (._x) among them, are left out.
    """
    seen: set[Path] = set()
    for pattern in patterns:
        for found in _matches(pattern):
            if found.path not in seen:
                seen.add(found.path)
                yield found


def _matches(pattern: str) -> Iterator[FoundRecording]:
    path = Path(pattern)
    if not path.exists() and glob.has_magic(pattern):
        for name in sorted(glob.glob(pattern, recursive=True)):
            yield from _of_path(Path(name))
    else:
        yield from _of_path(path)


def _of_path(path: Path) -> Iterator[FoundRecording]:
    if not path.is_dir():
        yield FoundRecording(path, Path(path.name))
        return
    for entry in sorted(path.rglob("*")):
        place = entry.relative_to(path)
        if is_recording_name(place.as_posix()) and entry.is_file() and _looks_right(entry):
            yield FoundRecording(entry, place)


def _looks_right(path: Path) -> bool:
    if not needs_look(path.name):
        return True
    try:
        with path.open("rb") as file:
            return is_transport_stream(file.read(TRANSPORT_STREAM_HEAD_BYTES))
    except OSError:
        # Whoever transcribes it says what is wrong.
        return True


def output_paths(recordings: Sequence[FoundRecording], suffix: str) -> dict[Path, Path]:
    """Returns where each recording's transcript goes below the output directory.

    The folders of a directory that was named are kept. Recordings that would share a place, as
    those of two directories may, keep as much of their own folders as tells them apart.

    Args:
        recordings: all of them; their paths differ.
        suffix: of the transcripts, as `.srt`.

    Returns:
        A relative path for each recording's path; no two are the same.
    """
    absolute = {one.path: Path(os.path.abspath(one.path)) for one in recordings}
    counts = Counter(_folded(one.place) for one in recordings)
    shared = [absolute[one.path].parent for one in recordings if counts[_folded(one.place)] > 1]
    root = Path(os.path.commonpath(shared)) if shared else Path()
    places: dict[Path, Path] = {}
    taken: set[str] = set()
    for one in recordings:
        clashes = counts[_folded(one.place)] > 1
        place = absolute[one.path].relative_to(root) if clashes else one.place
        wanted, number = place, 1
        while _folded(wanted) in taken:
            number += 1
            wanted = place.with_name(f"{place.name} ({number})")
        taken.add(_folded(wanted))
        places[one.path] = wanted.with_name(f"{wanted.name}{suffix}")
    return places


def _folded(place: Path) -> str:
    """Names that differ in case are one file on some systems."""
    return str(place).casefold()
