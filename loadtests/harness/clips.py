"""Recordings of any length out of the bundled one, and the text that each must give.

Short recordings are its beginning. Long ones are whole repetitions of it, each
followed by a pause and as long as a whole number of the VAD's blocks, so that every
repetition gives the same text and the text of all is the text of one, repeated.
FLAC, because every byte of the answer depends on what is decoded: a lossy codec
would carry state from one repetition into the next.
"""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from serve_app.cli.serve import demo_recording

RATE_HZ = 16_000
# The VAD decides in blocks of this length; repetitions that are whole blocks apart
# meet the same arithmetic.
_VAD_BLOCK_SAMPLES = 40_960
_PAUSE_S = 5.0
_SHORTEST_S = 1.0
# FLAC stores samples whose low bits are all zero in fewer bits; without these the
# recording sounds the same to the models, and an hour of it stays below 50 MB.
_DROPPED_BITS = 6


@dataclass(frozen=True, slots=True, order=True)
class Clip:
    """A recording: the beginning of the bundled one, or repetitions of it.

    Attributes:
        repetitions: of the whole part; 0 for a beginning of it.
        num_samples: 16 kHz mono.
    """

    repetitions: int
    num_samples: int

    @property
    def audio_s(self) -> float:
        return self.num_samples / RATE_HZ


class ClipLibrary:
    """Makes recordings in a directory, each once.

    Args:
        directory: for the files; its owner removes it.
        dropped_bits: of every sample; 0 for the recording as it is.
    """

    def __init__(self, directory: Path, dropped_bits: int = _DROPPED_BITS) -> None:
        self._directory = directory
        self._part = _part(dropped_bits)

    @property
    def part_s(self) -> float:
        """Length of one repetition."""
        return len(self._part) / RATE_HZ

    def clip(self, audio_s: float) -> Clip:
        """Returns the recording whose length comes closest; short ones are whole seconds.

        Raises:
            ValueError: the length is not positive.
        """
        if audio_s <= 0:
            raise ValueError("a recording has a length")
        repetitions = round(audio_s * RATE_HZ / len(self._part))
        if repetitions > 0:
            return Clip(repetitions, repetitions * len(self._part))
        return Clip(0, round(max(_SHORTEST_S, audio_s)) * RATE_HZ)

    def path(self, clip: Clip) -> Path:
        """Returns the file of a recording, made if it is not there."""
        path = self._directory / f"{clip.repetitions}-{clip.num_samples}.flac"
        if not path.exists():
            with soundfile.SoundFile(path, "w", RATE_HZ, 1, "PCM_16", format="FLAC") as flac:
                for _ in range(clip.repetitions):
                    flac.write(self._part)
                if clip.repetitions == 0:
                    flac.write(self._part[: clip.num_samples])
        return path

    def content(self, audio_s: float) -> bytes:
        """Returns the file of the recording whose length comes closest."""
        return self.path(self.clip(audio_s)).read_bytes()

    async def texts(
        self, clips: Iterable[Clip], ask: Callable[[bytes], Awaitable[str]]
    ) -> dict[Clip, str]:
        """Returns what the service, idle, answers to each recording.

        Only beginnings, one and two repetitions are asked for; the text of more is
        computed once two have been seen to give the text of one twice.

        Args:
            clips: the recordings.
            ask: returns the service's text of a file.

        Raises:
            ClientError: the idle service did not answer.
            ValueError: two repetitions do not give twice the text.
        """
        wanted = sorted(set(clips))
        texts = {
            clip: await ask(self.path(clip).read_bytes()) for clip in wanted if not clip.repetitions
        }
        if any(clip.repetitions for clip in wanted):
            one, two = (self.path(Clip(n, n * len(self._part))).read_bytes() for n in (1, 2))
            text = await ask(one)
            if await ask(two) != text * 2:
                raise ValueError("two repetitions of the recording do not give its text twice")
            texts |= {clip: text * clip.repetitions for clip in wanted if clip.repetitions}
        return texts


def spoken() -> npt.NDArray[np.int16]:
    """Returns the samples of the bundled recording."""
    samples, _ = soundfile.read(demo_recording().path, dtype="int16")
    return np.asarray(samples, np.int16)


def repeated(audio_s: float) -> bytes:
    """Returns the bundled recording as FLAC, repeated without pauses and cut to a length."""
    file = io.BytesIO()
    samples = np.resize(spoken(), round(audio_s * RATE_HZ))
    soundfile.write(file, samples, RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _part(dropped_bits: int) -> npt.NDArray[np.int16]:
    samples = spoken()
    wanted = len(samples) + int(_PAUSE_S * RATE_HZ)
    padded = -(-wanted // _VAD_BLOCK_SAMPLES) * _VAD_BLOCK_SAMPLES
    coarse = samples >> dropped_bits << dropped_bits
    return np.pad(coarse, (0, padded - len(samples)))
