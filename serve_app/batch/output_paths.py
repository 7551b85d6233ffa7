"""Paths of a job's results below its output, derived from the recordings' ids.

- `mirror`: the folders of the source; `calls/7.wav` becomes `transcripts/calls/7.wav.json`.
- `hashed`: 256 folders by digest, for outputs of millions of recordings in one folder.

Both give every id a path of its own on any file system or store, and need no other id for it.
"""

from __future__ import annotations

import hashlib
import unicodedata

from serve_app.batch.records import TEXT_FORMATS
from serve_app.settings.batch import Layout

TRANSCRIPTS = "transcripts"
FAILURES = "_run/failures"

_MAX_PATH_BYTES = 800
"""Of a mirrored path; keys of S3 have at most 1,024 bytes."""

_MAX_NAME_BYTES = 180
_UNSAFE = frozenset('%/\\:*?"<>|~')
_DIGEST_CHARACTERS = 32
_WRITTEN_SUFFIXES = (".json", *(f".{name}" for name in TEXT_FORMATS))


def result_path(recording_id: str, layout: Layout) -> str:
    """Returns the path of a recording's result, without a suffix."""
    if layout == "mirror":
        mirrored = "/".join(_folder_names(recording_id))
        if len(mirrored.encode()) <= _MAX_PATH_BYTES:
            return f"{TRANSCRIPTS}/{mirrored}"
        return (
            f"{TRANSCRIPTS}/{shard_of(recording_id)}/{_cut(file_name(recording_id), recording_id)}"
        )
    return f"{TRANSCRIPTS}/{shard_of(recording_id)}/{file_name(recording_id)}"


def failure_path(recording_id: str) -> str:
    """Returns the path of the record of a recording's failure."""
    return f"{FAILURES}/{shard_of(recording_id)}/{file_name(recording_id)}.json"


def _folder_names(recording_id: str) -> list[str]:
    *folders, name = recording_id.split("/")
    names = []
    for folder in folders:
        # Windows and some stores have no empty names.
        safe = file_name(folder) or "%"
        if safe.casefold().endswith(_WRITTEN_SUFFIXES):
            # `a` and `a.json/b` would need a file and a folder of one name.
            stem, _, suffix = safe.rpartition(".")
            safe = f"{stem}{_percent('.')}{suffix}"
        names.append(safe)
    return [*names, file_name(name) or "%"]


def shard_of(recording_id: str) -> str:
    """Returns the folder of a recording, one of 256 to keep each small."""
    return hashlib.sha256(recording_id.encode()).hexdigest()[:2]


def file_name(recording_id: str) -> str:
    """Returns a unique name that any file system or store accepts.

    Unsafe characters are percent-encoded; letters of any script stay. A name that is too
    long is cut and ends in `~` and a digest of the whole id.
    """
    name = "".join(_escaped(character, at) for at, character in enumerate(recording_id))
    if name.endswith((".", " ")):
        name = name[:-1] + _percent(name[-1])
    return name if len(name.encode()) <= _MAX_NAME_BYTES else _cut(name, recording_id)


def _cut(name: str, recording_id: str) -> str:
    digest = hashlib.sha256(recording_id.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    room = _MAX_NAME_BYTES - 1 - _DIGEST_CHARACTERS
    return f"{name.encode()[:room].decode(errors='ignore')}~{digest}"


def _escaped(character: str, position: int) -> str:
    unsafe = (
        character in _UNSAFE
        or (character == "." and position == 0)
        or unicodedata.category(character)[0] in "CZ"
        # Some file systems normalize composed characters, others do not.
        or unicodedata.normalize("NFC", character) != character
        or unicodedata.combining(character) != 0
    )
    return _percent(character) if unsafe and character != " " else character


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())
