"""Names of files that hold recordings, for whoever looks for them in a directory."""

from __future__ import annotations

from pathlib import PurePosixPath

AUDIO_SUFFIXES = frozenset({
    ".wav", ".wave", ".rf64", ".bwf", ".w64", ".aif", ".aiff", ".aifc", ".flac", ".ogg", ".oga",
    ".ogx", ".opus", ".spx", ".mp1", ".mp2", ".mp3", ".mpga", ".mp4", ".m4a", ".m4b", ".m4v",
    ".m4r", ".mov", ".qt", ".3gp", ".3gpp", ".3g2", ".f4a", ".f4v", ".aac", ".adts", ".amr",
    ".awb", ".webm", ".weba", ".mkv", ".mka", ".au", ".snd", ".caf", ".wma", ".wmv", ".asf",
    ".avi", ".flv", ".ts", ".m2t", ".mts", ".m2ts", ".mpegts",
})  # fmt: skip
"""What is picked up: every container that the decoder takes, in lower case. The content
decides what a file is; a name on its own only says that it is worth a look."""


_TRANSPORT_STREAM_SUFFIX = ".ts"


def is_recording_name(relative_path: str) -> bool:
    """True if a path below a directory, with `/` between its parts, is named like a recording.

    Hidden files and AppleDouble files (`._name`, which macOS puts beside the real ones on
    other file systems) are not, nor is anything in a hidden directory.
    """
    path = PurePosixPath(relative_path)
    if any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
        return False
    return path.suffix.lower() in AUDIO_SUFFIXES


def needs_look(relative_path: str) -> bool:
    """True if a name alone does not tell a recording: `.ts` is TypeScript's suffix, too."""
    return PurePosixPath(relative_path).suffix.lower() == _TRANSPORT_STREAM_SUFFIX
