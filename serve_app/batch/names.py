"""From a recording's id to the name of its files."""

from __future__ import annotations

import hashlib
import unicodedata

_MAX_NAME_BYTES = 180
_UNSAFE = frozenset('%/\\:*?"<>|~')
_DIGEST_CHARACTERS = 32


def shard_of(recording_id: str) -> str:
    """Returns the folder of a recording: one of 256, so that none grows too large."""
    return hashlib.sha256(recording_id.encode()).hexdigest()[:2]


def file_name(recording_id: str) -> str:
    """Returns a name that any file system and store takes; no two ids have the same.

    What is unsafe is percent-encoded, letters of any script stay. A name that would be too
    long is cut and ends in `~` and a digest of the whole id.
    """
    name = "".join(_escaped(character, at) for at, character in enumerate(recording_id))
    if name.endswith((".", " ")):
        name = name[:-1] + _percent(name[-1])
    if len(name.encode()) <= _MAX_NAME_BYTES:
        return name
    digest = hashlib.sha256(recording_id.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    room = _MAX_NAME_BYTES - 1 - _DIGEST_CHARACTERS
    return f"{name.encode()[:room].decode(errors='ignore')}~{digest}"


def _escaped(character: str, position: int) -> str:
    unsafe = (
        character in _UNSAFE
        or (character == "." and position == 0)
        or unicodedata.category(character)[0] in "CZ"
        # Some file systems compose what others keep apart.
        or unicodedata.normalize("NFC", character) != character
        or unicodedata.combining(character) != 0
    )
    return _percent(character) if unsafe and character != " " else character


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())
