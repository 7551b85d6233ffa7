"""What the GPU comparison runs on; handed to its child processes as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import torch

from loadtests.bench.options import samples
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

    pack: str = "paraformer-demo"
    punctuation_pack: str = "ct-punc-demo"
    vad_pack: str = "fsmn-vad"
    audio: str = "demo"
    seconds: float = 3600.0
    recording_s: float = 300.0
    repeats: int = 5
    device: str = "cuda"
    max_batch_frames: int = 20_000
    max_batch_words: int = 20_000
    vad_processes: int = 1
    batch_sizes: tuple[int, ...] = (1, 8, 32, 64, 128)
    batch_sizes_s: tuple[int, ...] = (60, 300, 1000, 3000)
    peers: bool = True

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

    @property
    def device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.on_gpu else "no GPU (trial run)"

    def recordings(self) -> list[Pcm]:
        """The audio, cut into recordings."""
        whole = samples(self.audio, self.seconds)
        length = round(self.recording_s * SAMPLE_RATE_HZ)
        return [whole[start : start + length] for start in range(0, len(whole), length)]

    def held_bytes(self) -> int:
        """Memory of the device that PyTorch holds for this process, what is cached included."""
        return torch.cuda.memory_reserved(self.device) if self.on_gpu else 0
