"""A directory of many short recordings, few long ones, and some that are no audio."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

from loadtests.load.clips import ClipLibrary

_LONG_S = 3600.0
_CLIP_LENGTHS_S = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15)
_NOT_AUDIO = b"This is no recording.\n"


@dataclass(frozen=True, slots=True)
class Collection:
    """What lies in a directory.

    Attributes:
        directory: to transcribe.
        num_good: recordings with speech.
        num_bad: files that no decoder takes, or not to their end.
        audio_s: of the good ones.
    """

    directory: Path
    num_good: int
    num_bad: int
    audio_s: float


def make_collection(
    directory: Path, library: ClipLibrary, *, num_clips: int, num_long: int, num_bad: int
) -> Collection:
    """Fills an empty directory; the same numbers give the same content."""
    dice = random.Random(num_clips)  # noqa: S311 - nothing secret
    directory.mkdir(parents=True)
    audio_s = 0.0
    for i in range(num_clips + num_long):
        clip = library.clip(_LONG_S if i >= num_clips else dice.choice(_CLIP_LENGTHS_S))
        name = f"clip-{i:05d}.flac" if i < num_clips else f"hour-{i - num_clips}.flac"
        # Links, since the same content again would only fill the disk.
        os.link(library.path(clip), directory / name)
        audio_s += clip.audio_s
    whole = library.path(library.clip(4.0)).read_bytes()
    for i in range(num_bad):
        content = (b"", _NOT_AUDIO, whole[: len(whole) // 2], whole[:40] + b"\xff" * 2000)[i % 4]
        (directory / f"bad-{i:05d}.flac").write_bytes(content)
    return Collection(directory, num_clips + num_long, num_bad, audio_s)


def make_files(directory: Path, library: ClipLibrary, audio_s: float) -> tuple[list[Path], float]:
    """Fills an empty directory with about so much audio, half of it in one long recording.

    Returns:
        The files, and their audio in s.
    """
    dice = random.Random(1)  # noqa: S311 - nothing secret
    directory.mkdir(parents=True)
    clips = [library.clip(audio_s / 2)]
    while sum(clip.audio_s for clip in clips) < audio_s:
        clips.append(library.clip(dice.choice(_CLIP_LENGTHS_S)))
    files = [directory / f"{i:05d}.flac" for i in range(len(clips))]
    for clip, file in zip(clips, files, strict=True):
        os.link(library.path(clip), file)
    return files, sum(clip.audio_s for clip in clips)
