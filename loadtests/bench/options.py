"""What a comparison runs on; handed to its child processes as JSON."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile

from loadtests.recordings import recording
from serve_app.core.records import SAMPLE_RATE_HZ, STAGES, FileBytes, Pcm
from serve_app.inference.local import LocalTranscriber
from serve_app.packs import PackContents, PackStore, resolve
from serve_app.packs.integrity import BUILTIN_DIRECTORY
from serve_app.settings import Settings
from serve_app.transcript.transcript import collect

DEMO_AUDIO = "demo"
REAL_AUDIO = "real"
_PART_S = 600.0


@dataclass(frozen=True, slots=True)
class Options:
    """Packs and audio of a comparison.

    Attributes:
        pack: the recognizer's, a name or `dir:/PATH`.
        punctuation_pack: the punctuation model's, likewise.
        vad_pack: the VAD's, likewise.
        speaker_pack: the speaker model's, likewise.
        audio: `demo`, `real` (a pinned recording, downloaded), or a file.
        seconds: how much of it; it is repeated until that long.
        repeats: runs of each peer.
        max_minutes: longest recording of `length`.
        batch_size: of AutoModel where it batches.
        scratch: directory for what is exported for a peer.
    """

    pack: str
    punctuation_pack: str
    vad_pack: str
    audio: str
    seconds: float
    repeats: int
    max_minutes: float
    batch_size: int
    scratch: str
    speaker_pack: str = "campplus-zh-en"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Options:
        return cls(**json.loads(text))

    def settings(self) -> Settings:
        """The demo profile with these packs, for files of any length."""
        return Settings.model_validate(
            {
                "profile": "demo",
                "audio": {"max_duration_s": 24 * 3600.0},
                "vad": {"pack": self.vad_pack},
                # As the large CPU profile: full batches, whoever waits.
                "recognizer": {"pack": self.pack, "max_batch_s": None},
                "punctuator": {"pack": self.punctuation_pack},
            }
        )

    def samples(self, seconds: float | None = None) -> Pcm:
        """The recording, repeated and cut to length."""
        return samples(self.audio, self.seconds if seconds is None else seconds)


def samples(audio: str, seconds: float) -> Pcm:
    """Returns a recording, repeated and cut to length.

    Args:
        audio: `demo`, `real`, or a file.
        seconds: the length.

    Raises:
        ValueError: it is not 16 kHz mono.
    """
    path = Path(audio)
    if audio == DEMO_AUDIO:
        path = BUILTIN_DIRECTORY / "samples" / "demo.flac"
    elif audio == REAL_AUDIO:
        path = recording("vad_example.wav", PackStore())
    pcm, rate_hz = soundfile.read(path, dtype="int16")
    if rate_hz != SAMPLE_RATE_HZ or pcm.ndim != 1:
        raise ValueError(f"{audio} is not 16 kHz mono")
    tiled: Pcm = np.resize(pcm, round(seconds * SAMPLE_RATE_HZ))
    return tiled


def long_flac(options: Options, seconds: float) -> FileBytes:
    """As `as_flac`, of any length: the samples are never all in memory."""
    left = round(seconds * SAMPLE_RATE_HZ)
    part = options.samples(min(seconds, _PART_S))
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", SAMPLE_RATE_HZ, 1, format="FLAC") as file:
        while left > 0:
            file.write(part[:left])
            left -= len(part)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


def as_flac(samples: Pcm) -> FileBytes:
    """The samples as a file, as a client would send it."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE_HZ, format="FLAC")
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


async def text_of(transcriber: LocalTranscriber, audio: FileBytes) -> str:
    """Returns the text of a recording, of all stages in this process."""
    return (await collect(transcriber.transcribe(audio, frozenset(STAGES)))).text


def pack_name(given: str) -> str:
    """A directory, as the settings write it; other names as they are."""
    path = Path(given).expanduser()
    return f"dir:{path.absolute()}" if path.is_dir() else given


def short(name: str) -> str:
    """A pack's name without the directories above it."""
    return name.rpartition("/")[2]


def open_named(name: str) -> PackContents:
    return resolve(name, PackStore())
