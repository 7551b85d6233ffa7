"""Finds the recordings of a command line and names the files of their transcripts."""

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
    """A recording of the command line.

    Attributes:
        path: of the file.
        relative_path: below the directory that was given; the file's name if it was given itself.
    """

    path: Path
    relative_path: Path


def find_recordings(patterns: Sequence[str]) -> Iterator[FoundRecording]:
    """Yields each file once: given by name, found in a directory, or matched by a glob pattern.

    A name that is no pattern is yielded even if the file does not exist. Hidden files in
    directories are skipped, such as those that macOS creates (._x).
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
        relative = entry.relative_to(path)
        if is_recording_name(relative.as_posix()) and entry.is_file() and _is_recording(entry):
            yield FoundRecording(entry, relative)


def _is_recording(path: Path) -> bool:
    if not needs_look(path.name):
        return True
    try:
        with path.open("rb") as file:
            return is_transport_stream(file.read(TRANSPORT_STREAM_HEAD_BYTES))
    except OSError:
        # The transcription reports the error.
        return True


def output_paths(recordings: Sequence[FoundRecording], suffix: str) -> dict[Path, Path]:
    """Returns the path of each recording's transcript below the output directory.

    Folders below a given directory are kept. Recordings that would get the same path, such as
    those of two directories, keep as many of their parent folders as they need to differ.

    Args:
        recordings: all of them, with different paths.
        suffix: of the transcripts, such as `.srt`.

    Returns:
        A relative path for each recording's path, all different.
    """
    absolute = {one.path: Path(os.path.abspath(one.path)) for one in recordings}
    counts = Counter(_folded(one.relative_path) for one in recordings)
    shared = [
        absolute[one.path].parent for one in recordings if counts[_folded(one.relative_path)] > 1
    ]
    root = Path(os.path.commonpath(shared)) if shared else Path()
    paths: dict[Path, Path] = {}
    taken: set[str] = set()
    for one in recordings:
        clashes = counts[_folded(one.relative_path)] > 1
        preferred = absolute[one.path].relative_to(root) if clashes else one.relative_path
        chosen, number = preferred, 1
        while _folded(chosen) in taken:
            number += 1
            chosen = preferred.with_name(f"{preferred.name} ({number})")
        taken.add(_folded(chosen))
        paths[one.path] = chosen.with_name(f"{chosen.name}{suffix}")
    return paths


def _folded(path: Path) -> str:
    """Returns a path for comparison; some file systems ignore case."""
    return str(path).casefold()


def write_whole(path: Path, text: str) -> None:
    """Writes a text file, and its directories; a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(text, encoding="utf-8", newline="\n")
    draft.replace(path)
