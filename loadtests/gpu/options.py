"""What the GPU comparison runs on; handed to its child processes as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import torch

from loadtests.bench.measuring import machine
from loadtests.bench.options import Options
from serve_app.core.records import SAMPLE_RATE_HZ, Pcm


@dataclass(frozen=True, slots=True)
class Trial:
    """Packs, audio and limits.

    Attributes:
        pack: the recognizer's, a name or `dir:/PATH`.
        punctuation_pack: the punctuation model's, likewise.
        vad_pack: the VAD's, likewise.
        audio: `demo`, `real`, or a file of 16 kHz mono.
        seconds: how much of it; it is repeated until that long.
        recording_s: length of one recording; the audio is cut into such.
        repeats: runs of each peer.
        device: `cuda`, `cuda:1`, or `cpu` for a trial without a device.
        max_batch_frames: budget of our batches.
        max_batch_words: likewise, of punctuation.
        vad_processes: how many search for speech beside the recognizer.
        batch_sizes: segments a batch, tried for AutoModel's recognizer.
        batch_sizes_s: seconds a batch, tried for AutoModel all in one.
        peers: include FunASR's AutoModel.
    """

    pack: str
    punctuation_pack: str
    vad_pack: str
    audio: str
    seconds: float
    recording_s: float
    repeats: int
    device: str
    max_batch_frames: int
    max_batch_words: int
    vad_processes: int
    batch_sizes: tuple[int, ...]
    batch_sizes_s: tuple[int, ...]
    peers: bool

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Trial:
        fields = json.loads(text)
        for name in ("batch_sizes", "batch_sizes_s"):
            fields[name] = tuple(fields[name])
        return cls(**fields)

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    def recordings(self) -> list[Pcm]:
        """The audio, cut into recordings."""
        whole = Options(
            pack=self.pack,
            punctuation_pack=self.punctuation_pack,
            vad_pack=self.vad_pack,
            audio=self.audio,
            seconds=self.seconds,
            repeats=self.repeats,
            max_minutes=0.0,
            batch_size=1,
            scratch="",
        ).samples()
        length = round(self.recording_s * SAMPLE_RATE_HZ)
        return [whole[start : start + length] for start in range(0, len(whole), length)]

    def where(self) -> str:
        """One line on the machine and its device."""
        name = torch.cuda.get_device_name(self.device) if self.on_gpu else "no GPU (trial run)"
        return f"{name}; {machine()}"
