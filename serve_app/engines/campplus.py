"""CAM++: embeddings of voices, one for each window of speech.

Features are those of FunASR's CAMPPlus: 80 mel bands of samples from -1 to 1, less their mean
over the window. A frame's energies depend on its own samples alone, so they are computed once
per piece of speech, and windows that start at a frame share them.

Source: FunASR 1.4.16, `models/campplus/utils.py` (`sv_chunk`, `extract_feature`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch

from serve_app.core.errors import PackCorrupt
from serve_app.core.records import SAMPLES_PER_MS, Pcm
from serve_app.core.speakers import WINDOW_MS, Embeddings, speaker_windows
from serve_app.engines.campplus_network import Campplus, CampplusCheckpoint, CampplusSize
from serve_app.engines.devices import check_dtype, open_device
from serve_app.engines.features import NUM_MEL_BINS, SHIFT_SAMPLES, log_mel, num_frames
from serve_app.packs.pack import PackContents, load_into

_WINDOW_SAMPLES = WINDOW_MS * SAMPLES_PER_MS
_WINDOW_FRAMES = num_frames(_WINDOW_SAMPLES)
_FULL_SCALE = 32768.0
_REMEDY = "Use a CAM++ pack such as campplus-zh-en"
# What any other value would change without an error.
_FIXED = {"feat_dim": NUM_MEL_BINS, "config_str": "batchnorm-relu", "output_level": "segment"}


class CampplusEngine:
    """Embeds speech; implements `core.ports.SpeakerEmbedder`.

    In float32, a window's embedding is bit-identical whatever it is batched with.

    Args:
        pack: a CAM++ pack.
        device: `cpu`, `cuda` or `cuda:1`, as in PyTorch.
        dtype: of the products; `bfloat16` needs a CPU with AVX512-BF16 or AMX.

    Raises:
        PackIncomplete, PackCorrupt: the pack cannot be used.
        DeviceUnavailable: the device is not on this machine.
        ConfigurationError: the dtype is unknown, or unsupported on this device or CPU.
    """

    max_in_flight = 1
    is_reentrant = True

    def __init__(self, pack: PackContents, device: str = "cpu", dtype: str = "float32") -> None:
        size = size_of(pack)
        opened = open_device(device)
        check_dtype(dtype, opened, ("float32", "bfloat16"))
        with torch.device("meta"):
            checkpoint = CampplusCheckpoint(size)
        load_into(checkpoint, pack)
        self._network = Campplus(checkpoint, opened, dtype)
        # The first pass selects kernels.
        self.embed([np.zeros(_WINDOW_SAMPLES, np.int16)])

    @torch.inference_mode()
    def embed(self, batch: Sequence[Pcm]) -> list[Embeddings]:
        """Returns an embedding per window of each item; see `core.ports.SpeakerEmbedder`."""
        features = [_features_of(pcm) for pcm in batch]
        counts = [len(windows) for windows in features]
        if not sum(counts):
            return [np.empty((0, self._network.embedding_size), np.float32) for _ in batch]
        embeddings = self._network.embed(torch.cat(features)).numpy()
        ends = np.cumsum(counts)
        return [embeddings[end - count : end] for end, count in zip(ends, counts, strict=True)]

    def cost(self, num_samples: int) -> int:
        """Returns the windows of a piece of speech."""
        return len(speaker_windows(num_samples))


def size_of(pack: PackContents) -> CampplusSize:
    """Returns the sizes of the network.

    Raises:
        PackCorrupt: the pack has another network.
    """
    conf = pack.config.get("model_conf") or {}
    if pack.model_class != "CAMPPlus" or not isinstance(conf, dict):
        raise PackCorrupt(pack.name, "its model is not a CAMPPlus", _REMEDY)
    for key, value in _FIXED.items():
        if conf.get(key, value) != value:
            raise PackCorrupt(pack.name, f"its {key} is {conf[key]}, not {value}", _REMEDY)
    names = [field.name for field in fields(CampplusSize)]
    return CampplusSize(**{name: int(conf[name]) for name in names if name in conf})


def _features_of(pcm: Pcm) -> torch.Tensor:
    """Returns the features of all windows, float32 [windows, frames, bands]."""
    windows = speaker_windows(len(pcm))
    if not windows:
        return torch.empty(0, _WINDOW_FRAMES, NUM_MEL_BINS)
    samples = torch.from_numpy(pcm.astype(np.float32) / _FULL_SCALE)
    if len(samples) < _WINDOW_SAMPLES:
        samples = torch.nn.functional.pad(samples, (0, _WINDOW_SAMPLES - len(samples)))
    frames = log_mel(samples, "povey")
    features = torch.stack([_window(frames, samples, start) for start, _ in windows])
    return features - features.mean(dim=1, keepdim=True)


def _window(frames: torch.Tensor, samples: torch.Tensor, start: int) -> torch.Tensor:
    first, between_frames = divmod(start, SHIFT_SAMPLES)
    if between_frames:
        return log_mel(samples[start : start + _WINDOW_SAMPLES], "povey")
    return frames[first : first + _WINDOW_FRAMES]
