"""Converts the samples of uncompressed files to float32; NaN and infinity become silence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from serve_app.audio.damage import DamageReport
from serve_app.audio.layout import FloatSamples
from serve_app.core.errors import CorruptAudio, InvalidSamples

ByteOrder: TypeAlias = Literal["<", ">"]
Encoding: TypeAlias = Literal["u8", "s8", "s16", "s24", "s32", "f32", "f64", "alaw", "ulaw"]

SAMPLE_BYTES: dict[Encoding, int] = {
    "u8": 1, "s8": 1, "alaw": 1, "ulaw": 1, "s16": 2, "s24": 3, "s32": 4, "f32": 4, "f64": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PcmFormat:
    """How samples are stored, channels interleaved."""

    encoding: Encoding
    byte_order: ByteOrder
    rate_hz: int
    channels: int

    @property
    def bytes_per_frame(self) -> int:
        return SAMPLE_BYTES[self.encoding] * self.channels

    @property
    def bytes_per_s(self) -> int:
        return self.bytes_per_frame * self.rate_hz


def to_float(content: bytes, pcm: PcmFormat) -> npt.NDArray[np.float32]:
    """Returns whole frames as samples, shape [channels, n], full scale at 1.0."""
    if pcm.encoding in {"alaw", "ulaw"}:
        table = _ALAW_TABLE if pcm.encoding == "alaw" else _ULAW_TABLE
        flat = table[np.frombuffer(content, np.uint8)]
    elif pcm.encoding == "u8":
        flat = (np.frombuffer(content, np.uint8).astype(np.float32) - 128) / np.float32(128)
    elif pcm.encoding == "s8":
        flat = np.frombuffer(content, np.int8).astype(np.float32) / np.float32(128)
    elif pcm.encoding == "s24":
        flat = _from_24_bits(content, pcm.byte_order)
    elif pcm.encoding in {"s16", "s32"}:
        bits = 16 if pcm.encoding == "s16" else 32
        integers = np.frombuffer(content, f"{pcm.byte_order}i{bits // 8}")
        flat = integers.astype(np.float32) / np.float32(2 ** (bits - 1))
    else:
        kind = "f4" if pcm.encoding == "f32" else "f8"
        with np.errstate(over="ignore", invalid="ignore"):
            flat = np.frombuffer(content, pcm.byte_order + kind).astype(np.float32)
    return np.ascontiguousarray(flat.reshape(-1, pcm.channels).T)


def _from_24_bits(content: bytes, order: ByteOrder) -> npt.NDArray[np.float32]:
    triples = np.frombuffer(content, np.uint8).reshape(-1, 3)
    words = np.zeros((len(triples), 4), np.uint8)
    # The sample fills the upper three bytes of a word; the lowest one stays 0.
    words[:, 1:] = triples if order == "<" else triples[:, ::-1]
    return words.view("<i4")[:, 0].astype(np.float32) / np.float32(2.0**31)


def _g711_tables() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Returns the samples of all 256 codes of A-law and of mu-law.

    Source: ITU-T G.711, tables 1 and 2.
    """
    codes = np.arange(256)
    code = codes ^ 0x55
    exponent, mantissa = code >> 4 & 7, code & 15
    magnitude = np.where(
        exponent == 0, (mantissa << 4) + 8, ((mantissa << 4) + 0x108) << np.maximum(exponent - 1, 0)
    )
    alaw = np.where(code & 0x80, magnitude, -magnitude)
    code = ~codes & 0xFF
    magnitude = (((code & 15) << 3) + 0x84 << (code >> 4 & 7)) - 0x84
    ulaw = np.where(code & 0x80, -magnitude, magnitude)
    scale = np.float32(2.0**15)
    return alaw.astype(np.float32) / scale, ulaw.astype(np.float32) / scale


_ALAW_TABLE, _ULAW_TABLE = _g711_tables()


class FiniteSamples:
    """Replaces NaN and infinite samples by silence and reports them.

    Args:
        report: receives the ranges.
        codec: of the samples; only uncompressed files can store such values.
    """

    def __init__(self, report: DamageReport, codec: str) -> None:
        self._report = report
        self._codec = codec
        self._first_s: float | None = None
        self._num_finite = 0

    def only(self, samples: FloatSamples, rate_hz: int, at_s: float) -> FloatSamples:
        """Returns the samples with silence for NaN and infinity; at_s is their start time."""
        finite = np.isfinite(samples)
        if finite.all():
            self._num_finite += samples.size
            return samples
        self._num_finite += int(finite.sum())
        at = np.flatnonzero(~finite.all(axis=0))
        first_s, last_s = at_s + int(at[0]) / rate_hz, at_s + (int(at[-1]) + 1) / rate_hz
        if self._first_s is None:
            self._first_s = first_s
        self._report.add(first_s, last_s, "samples are NaN or infinite")
        return np.where(finite, samples, np.float32(0)).astype(np.float32)

    def check_end(self) -> None:
        """Raises InvalidSamples or CorruptAudio if no sample was finite."""
        if self._first_s is None or self._num_finite:
            return
        if self._codec.startswith("pcm_"):
            raise InvalidSamples(self._first_s)
        raise CorruptAudio(f"{self._codec} data decodes to no finite samples")
