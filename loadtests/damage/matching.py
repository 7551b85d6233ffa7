"""Finds the pieces of one recording again in another decoding of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

_RATE_HZ = 16_000
_BLOCK = 4_000
_NEAR = 240
_LEAST_NEAR, _LEAST_FAR = 0.8, 0.95
_SPEECH_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Piece:
    """A quarter of a second of speech: where it is in the original, and where it was found."""

    start: int
    found: int | None

    @property
    def end(self) -> int:
        return self.start + _BLOCK

    @property
    def start_s(self) -> float:
        return self.start / _RATE_HZ

    @property
    def shift_s(self) -> float:
        return 0.0 if self.found is None else (self.found - self.start) / _RATE_HZ


def speech_starts(original: Samples) -> list[int]:
    """Returns where the blocks with speech begin."""
    starts = range(0, len(original) - _BLOCK, _BLOCK)
    powers = [float(np.square(original[start : start + _BLOCK]).mean()) for start in starts]
    least = _SPEECH_SHARE * max(powers)
    return [start for start, power in zip(starts, powers, strict=True) if power > least]


def find_pieces(original: Samples, decoded: Samples) -> list[Piece]:
    """Returns each block of speech with the place where the decoded samples have it."""
    shift = 0
    pieces: list[Piece] = []
    for start in speech_starts(original):
        block = original[start : start + _BLOCK]
        found = _search(block, decoded, start + shift - _NEAR, start + shift + _BLOCK + _NEAR)
        if found is None and shift:
            found = _search(block, decoded, start - _NEAR, start + _BLOCK + _NEAR)
        if found is None:
            # Speech resembles itself: far away, only the very same counts.
            found = _search(block, decoded, 0, len(decoded), _LEAST_FAR)
        pieces.append(Piece(start, found))
        if found is not None:
            shift = found - start
    return pieces


def _search(
    block: Samples, decoded: Samples, first: int, last: int, least: float = _LEAST_NEAR
) -> int | None:
    first = max(first, 0)
    region = decoded[first : max(last, 0)]
    if len(region) < len(block):
        return None
    num = 1 << (len(region) + len(block)).bit_length()
    spectrum = np.fft.rfft(region, num) * np.conj(np.fft.rfft(block, num))
    products = np.fft.irfft(spectrum, num)[: len(region) - len(block) + 1]
    sums = np.concatenate([[0.0], np.cumsum(np.square(region, dtype=np.float64))])
    powers = sums[len(block) :] - sums[: -len(block)]
    norms = np.sqrt(np.maximum(powers, 1e-9) * float(np.square(block, dtype=np.float64).sum()))
    correlations = products[: len(norms)] / norms
    best = int(correlations.argmax())
    return first + best if correlations[best] >= least else None


def is_quiet(original: Samples, decoded: Samples, start: int, shift: int) -> bool:
    """True if the decoded samples have next to nothing where a block should be."""
    block = original[start : start + _BLOCK]
    there = decoded[max(start + shift, 0) : max(start + shift + _BLOCK, 0)]
    if len(there) < _BLOCK // 2:
        return True
    return float(np.square(there).mean()) < 0.1 * float(np.square(block).mean())
