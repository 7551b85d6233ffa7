"""Features of a whole batch in one pass on the device.

The results equal those of `engines.features` up to rounding. Window and Fourier transform are one
matrix here: matrix products are fast on a GPU and can always be captured in a CUDA graph.
"""

from __future__ import annotations

import torch

from serve_app.engines.cuda.sequence_layout import SequenceLayout
from serve_app.engines.features import FRAME_SAMPLES, NUM_MEL_BINS, SHIFT_SAMPLES, num_frames

_FFT_SIZE = 512
_NUM_BINS = _FFT_SIZE // 2  # Kaldi's filters leave out the bin at the Nyquist frequency
_PREEMPHASIS = 0.97
_SAMPLE_RATE_HZ = 16_000
_LOW_HZ = 20.0
_BLOCK_FRAMES = 16_384


class Frontend:
    """Fbank, low frame rate and normalization.

    A sequence of R rows occupies R + 1 slots of `slot_samples` in the packed samples, because
    its last window reaches into one more slot.

    Args:
        cmvn: [2, m * 80], the shift that is added and the scale.
        m: frames stacked into a row.
        n: frames from a row to the next.
        device: where it computes.
    """

    def __init__(self, cmvn: torch.Tensor, m: int, n: int, device: torch.device) -> None:
        self._m, self._n = m, n
        self._cmvn = cmvn.to(device)
        self._fourier = windowed_fourier().to(device, torch.float32)
        self._filters = mel_filters().to(device, torch.float32)

    @property
    def slot_samples(self) -> int:
        """Samples from one row to the next."""
        return self._n * SHIFT_SAMPLES

    def num_rows(self, num_samples: int) -> int:
        return -(-num_frames(num_samples) // self._n)

    def num_samples(self, num_rows: int, num_sequences: int) -> int:
        """Returns the size of the packed samples for this many rows and sequences."""
        return (num_rows + num_sequences) * self.slot_samples + FRAME_SAMPLES - SHIFT_SAMPLES

    def lengths(self, num_samples: torch.Tensor) -> torch.Tensor:
        """Returns the rows of each sequence, int64 [sequences]; 0 for 0 samples."""
        frames = self._frames(num_samples)
        return torch.div(frames + self._n - 1, self._n, rounding_mode="floor")

    def forward(
        self, samples: torch.Tensor, num_samples: torch.Tensor, sequence_layout: SequenceLayout
    ) -> torch.Tensor:
        """Computes all rows.

        Args:
            samples: int16, at least `num_samples(rows, sequences)`; samples between the
                sequences are ignored.
            num_samples: int32 [sequences].
            sequence_layout: of the rows.

        Returns:
            float32 [rows, m * 80].
        """
        num_slots = sequence_layout.num_rows + sequence_layout.num_sequences
        used = samples[: num_slots * self.slot_samples + FRAME_SAMPLES - SHIFT_SAMPLES]
        windows = used.unfold(0, FRAME_SAMPLES, SHIFT_SAMPLES)
        mel = torch.cat([self._log_mel(block) for block in torch.split(windows, _BLOCK_FRAMES)])
        # Each earlier sequence shifts the start of a sequence by one slot.
        first = (
            sequence_layout.offsets[sequence_layout.sequence].long() + sequence_layout.sequence
        ) * self._n
        last = (self._frames(num_samples)[sequence_layout.sequence] - 1).clamp_min_(0)
        stacked = torch.arange(self._m, device=samples.device) - (self._m - 1) // 2
        within = sequence_layout.position[:, None] * self._n + stacked
        index = first[:, None] + torch.minimum(within.clamp_min_(0), last[:, None])
        rows = mel[index.clamp_max_(len(mel) - 1)].reshape(sequence_layout.num_rows, -1)
        return (rows + self._cmvn[0]) * self._cmvn[1]

    def _frames(self, num_samples: torch.Tensor) -> torch.Tensor:
        rest = num_samples.long() - FRAME_SAMPLES
        frames = torch.div(rest, SHIFT_SAMPLES, rounding_mode="floor") + 1
        return frames.clamp_min_(0)

    def _log_mel(self, windows: torch.Tensor) -> torch.Tensor:
        """int16 [frames, 400] to float32 [frames, 80]."""
        frames = windows.float()
        frames -= frames.mean(dim=1, keepdim=True)
        emphasized = torch.empty_like(frames)
        torch.sub(frames[:, 1:], frames[:, :-1], alpha=_PREEMPHASIS, out=emphasized[:, 1:])
        torch.mul(frames[:, 0], 1.0 - _PREEMPHASIS, out=emphasized[:, 0])
        squares = (emphasized @ self._fourier).square_()
        power = squares[:, :_NUM_BINS] + squares[:, _NUM_BINS:]
        energies: torch.Tensor = power @ self._filters
        return energies.clamp_min_(torch.finfo(torch.float32).eps).log_()


def windowed_fourier() -> torch.Tensor:
    """Returns Hamming window and Fourier transform, float64 [400, 512]: cosines, then sines."""
    window = torch.hamming_window(FRAME_SAMPLES, periodic=False, dtype=torch.float64)
    times = torch.arange(FRAME_SAMPLES, dtype=torch.float64)[:, None]
    cycles = times * torch.arange(_NUM_BINS, dtype=torch.float64) / _FFT_SIZE
    angles = 2.0 * torch.pi * cycles
    return window[:, None] * torch.cat([angles.cos(), angles.sin()], dim=1)


def mel_filters() -> torch.Tensor:
    """Returns triangular mel filters, float64 [256, 80].

    Source: Kaldi's `mel-computations.cc`, as in `engines.features`.
    """

    def mel(hertz: torch.Tensor) -> torch.Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    bins_hz = torch.arange(_NUM_BINS, dtype=torch.float64) * _SAMPLE_RATE_HZ / _FFT_SIZE
    ends = mel(torch.tensor([_LOW_HZ, _SAMPLE_RATE_HZ / 2], dtype=torch.float64))
    edges = torch.linspace(float(ends[0]), float(ends[1]), NUM_MEL_BINS + 2, dtype=torch.float64)
    left, center, right = edges[:-2], edges[1:-1], edges[2:]
    bins = mel(bins_hz)[:, None]
    return torch.minimum((bins - left) / (center - left), (right - bins) / (right - center)).clamp(
        0
    )
