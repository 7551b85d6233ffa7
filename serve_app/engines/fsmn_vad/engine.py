"""FSMN-VAD over a stream of samples, in constant memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from serve_app.core.errors import PackCorrupt
from serve_app.core.records import AS_DEPLOYED, Pcm, SpeechDetection, SpeechSegment
from serve_app.engines.features import (
    FRAME_SAMPLES,
    NUM_MEL_BINS,
    SHIFT_SAMPLES,
    apply_cmvn,
    log_mel,
    num_frames,
)
from serve_app.engines.fsmn_vad.endpointing import Endpointer, FrameClassifier, Scores, VadOptions
from serve_app.engines.fsmn_vad.network import BLOCK_FRAMES, Fsmn, load_fsmn
from serve_app.packs.pack import PackContents

_FULL_SCALE = 32768.0
_LEVEL_FLOOR = 1e-6


class FsmnVad:
    """Finds speech in recordings; implements `core.ports.VoiceActivityDetector`.

    Args:
        pack: an fsmn-vad pack.
        options: by default those of the pack.
        block_frames: of 10 ms that are decided together; fewer decide sooner and cost more.

    Raises:
        PackIncomplete, PackCorrupt: the pack cannot be used.
    """

    def __init__(
        self,
        pack: PackContents,
        options: VadOptions | None = None,
        block_frames: int = BLOCK_FRAMES,
    ) -> None:
        frontend = pack.config.get("frontend_conf") or {}
        if pack.cmvn is None or int(frontend.get("lfr_n", 1)) != 1:
            raise PackCorrupt(
                pack.name, "its front end is not that of FSMN-VAD", "Use an fsmn-vad pack"
            )
        self._num_stacked = int(frontend.get("lfr_m", 5))
        self._cmvn = torch.from_numpy(pack.cmvn.copy())
        self._network = load_fsmn(pack)
        self._options = options or VadOptions.from_config(pack.config.get("model_conf") or {})
        self._block_frames = block_frames
        # The first pass reads the mapped weights and selects kernels.
        warm_up = self.open()
        warm_up.push(np.zeros(_block_samples(block_frames), np.int16))
        warm_up.finish()

    def open(self, detection: SpeechDetection = AS_DEPLOYED) -> FsmnVadStream:
        """Opens a stream for one recording, with its own detection options."""
        options = self._options.adapted(detection)
        return FsmnVadStream(
            self._network, self._cmvn, self._num_stacked, options, self._block_frames
        )


def _block_samples(block_frames: int) -> int:
    return (block_frames - 1) * SHIFT_SAMPLES + FRAME_SAMPLES


class FsmnVadStream:
    """Detects speech in one recording; implements `core.ports.VadStream`.

    Segments are found block by block. Blocks have fixed positions in the recording, so the result
    does not depend on how the samples are divided into pushes.
    """

    def __init__(
        self,
        network: Fsmn,
        cmvn: torch.Tensor,
        num_stacked: int,
        options: VadOptions,
        block_frames: int = BLOCK_FRAMES,
    ) -> None:
        self._network = network
        self._state = network.initial_state()
        self._silence_ids = options.silence_ids
        self._frames = _StackedFrames(num_stacked, cmvn, with_levels=options.needs_levels)
        self._classifier = FrameClassifier(options)
        self._endpointer = Endpointer(options)
        self._block_frames = block_frames
        self._samples = np.empty(_block_samples(block_frames), np.float32)
        self._num_samples = 0

    @property
    def open_since_ms(self) -> int | None:
        """Start of the open segment; None without one."""
        return self._endpointer.open_since_ms

    @property
    def keep_from_ms(self) -> int:
        """Audio before this time belongs to no open or later segment."""
        return self._endpointer.keep_from_ms

    def push(self, pcm: Pcm) -> list[SpeechSegment]:
        """Takes the next samples; returns the segments that ended, in order."""
        closed: list[SpeechSegment] = []
        taken = 0
        while taken < len(pcm):
            part = pcm[taken : taken + len(self._samples) - self._num_samples]
            self._samples[self._num_samples : self._num_samples + len(part)] = part
            self._num_samples += len(part)
            taken += len(part)
            if self._num_samples == len(self._samples):
                closed += self._decide(self._samples, last=False)
                overlap = self._samples[self._block_frames * SHIFT_SAMPLES :].copy()
                self._samples[: len(overlap)] = overlap
                self._num_samples = len(overlap)
        return closed

    def finish(self) -> list[SpeechSegment]:
        """Ends the recording; returns the segments that were still open."""
        closed = self._decide(self._samples[: self._num_samples], last=True)
        self._num_samples = 0
        return closed + self._endpointer.finish()

    @torch.inference_mode()
    def _decide(self, samples: npt.NDArray[np.float32], last: bool) -> list[SpeechSegment]:
        features, levels_db = self._frames.push(torch.from_numpy(samples), last=last)
        if not len(features):
            return []
        silence, self._state = self._network.silence(features, self._state, self._silence_ids)
        return self._endpointer.push(self._classifier.classify(silence.numpy(), levels_db))


class _StackedFrames:
    """Makes the network's input: stacked neighboring frames, normalized.

    A row needs later frames, so rows lag behind the samples. The first and the last frame of the
    recording are repeated beyond its ends.
    """

    def __init__(self, num_stacked: int, cmvn: torch.Tensor, *, with_levels: bool) -> None:
        self._num_before = (num_stacked - 1) // 2
        self._num_after = num_stacked - 1 - self._num_before
        self._num_stacked = num_stacked
        self._cmvn = cmvn
        self._with_levels = with_levels
        self._waiting = torch.empty(0, NUM_MEL_BINS)
        self._waiting_levels: Scores = np.empty(0)

    def push(self, samples: torch.Tensor, *, last: bool) -> tuple[torch.Tensor, Scores | None]:
        """Returns features [T, num_stacked * 80], and levels in dB [T] if enabled."""
        mel = log_mel(samples)
        if not len(self._waiting):
            mel = torch.cat((mel[:1].repeat(self._num_before, 1), mel))
        frames = torch.cat((self._waiting, mel))
        if last and len(frames):
            frames = torch.cat((frames, frames[-1:].repeat(self._num_after, 1)))
        num_rows = max(0, len(frames) - self._num_stacked + 1)
        self._waiting = frames[num_rows:].clone()
        levels_db = self._levels(samples, num_rows) if self._with_levels else None
        if num_rows == 0:
            return torch.empty(0, self._num_stacked * NUM_MEL_BINS), levels_db
        rows = frames.unfold(0, self._num_stacked, 1).transpose(1, 2).reshape(num_rows, -1)
        return apply_cmvn(rows, self._cmvn), levels_db

    def _levels(self, samples: torch.Tensor, num_rows: int) -> Scores:
        levels_db = self._waiting_levels
        if num_frames(len(samples)):
            frames = (samples / _FULL_SCALE).unfold(0, FRAME_SAMPLES, SHIFT_SAMPLES)
            energy = frames.square().sum(dim=1).double() + _LEVEL_FLOOR
            levels_db = np.concatenate((levels_db, (10.0 * energy.log10()).numpy()))
        self._waiting_levels = levels_db[num_rows:]
        return levels_db[:num_rows]
