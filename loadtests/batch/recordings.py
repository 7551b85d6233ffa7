"""Directories of many short recordings, few long ones, and some that are no audio."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

from loadtests.harness.clips import ClipLibrary

CLIP_LENGTHS_S = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15)
_NOT_AUDIO = b"This is no recording.\n"


@dataclass(frozen=True, slots=True)
class Collection:
    """What lies in a directory.

    Attributes:
        directory: to transcribe.
        files: recordings with speech.
        num_bad: files that no decoder takes, or not to their end.
        audio_s: of the good ones.
    """

    directory: Path
    files: tuple[Path, ...]
    num_bad: int
    audio_s: float


def make_collection(
    directory: Path, library: ClipLibrary, lengths_s: list[float], num_bad: int = 0
) -> Collection:
    """Fills an empty directory with recordings of about these lengths."""
    directory.mkdir(parents=True)
    files = [directory / f"{number:05d}.flac" for number in range(len(lengths_s))]
    clips = [library.clip(length_s) for length_s in lengths_s]
    for clip, file in zip(clips, files, strict=True):
        # Links, since the same content again would only fill the disk.
        os.link(library.path(clip), file)
    whole = library.content(4.0)
    for i in range(num_bad):
        content = (b"", _NOT_AUDIO, whole[: len(whole) // 2], whole[:40] + b"\xff" * 2000)[i % 4]
        (directory / f"bad-{i:05d}.flac").write_bytes(content)
    return Collection(directory, tuple(files), num_bad, sum(clip.audio_s for clip in clips))


def clip_lengths_s(number: int) -> list[float]:
    """Returns lengths of so many clips; the same number gives the same lengths."""
    dice = random.Random(number)  # noqa: S311 - nothing secret
    return [dice.choice(CLIP_LENGTHS_S) for _ in range(number)]
