"""Recordings of any length out of the bundled one, and the text that each must give.

Short recordings are its beginning. Long ones are whole repetitions of it, each
followed by a pause and as long as a whole number of the VAD's blocks, so that every
repetition gives the same text and the text of all is the text of one, repeated.
FLAC, because every byte of the answer depends on what is decoded: a lossy codec
would carry state from one repetition into the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx
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
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._part = _part(demo_recording().path)

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

    async def texts(self, clips: Iterable[Clip], client: httpx.AsyncClient) -> dict[Clip, str]:
        """Returns what the service, idle, answers to each recording.

        Only beginnings, one and two repetitions are asked for; the text of more is
        computed once two have been seen to give the text of one twice.

        Raises:
            httpx.HTTPError: the idle service did not answer.
            ValueError: two repetitions do not give twice the text.
        """
        wanted = sorted(set(clips))
        texts = {clip: await self._ask(clip, client) for clip in wanted if clip.repetitions == 0}
        if any(clip.repetitions for clip in wanted):
            one, two = (Clip(n, n * len(self._part)) for n in (1, 2))
            text = await self._ask(one, client)
            if await self._ask(two, client) != text * 2:
                raise ValueError("two repetitions of the recording do not give its text twice")
            texts |= {clip: text * clip.repetitions for clip in wanted if clip.repetitions}
        return texts

    async def _ask(self, clip: Clip, client: httpx.AsyncClient) -> str:
        response = await client.post(
            "/v1/audio/transcriptions",
            data={"model": "whisper-1"},
            files={"file": ("clip.flac", self.path(clip).read_bytes())},
        )
        response.raise_for_status()
        text: str = response.json()["text"]
        return text


def _part(path: Path) -> npt.NDArray[np.int16]:
    samples, _ = soundfile.read(path, dtype="int16")
    wanted = len(samples) + int(_PAUSE_S * RATE_HZ)
    padded = -(-wanted // _VAD_BLOCK_SAMPLES) * _VAD_BLOCK_SAMPLES
    coarse = np.asarray(samples, np.int16) >> _DROPPED_BITS << _DROPPED_BITS
    return np.pad(coarse, (0, padded - len(samples)))
