"""Paraformer on onnxruntime with an exported pack, without PyTorch in the process.

Power spectra are computed in numpy; the graphs of the pack do the rest. Source of the spectra: see
`serve_app.engines.features`.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from numpy.lib.stride_tricks import sliding_window_view

from serve_app.core.errors import ConfigurationError, PackCorrupt
from serve_app.core.records import ChunkFailure, Pcm, RecognitionOptions
from serve_app.engines.framing import FRAME_SAMPLES, SHIFT_SAMPLES, num_frames, stacking
from serve_app.engines.paraformer.cif_fire import CifShape, FloatArray, Integration, fire, with_tail
from serve_app.engines.paraformer.decoded import DecodingEngine
from serve_app.engines.paraformer.detokenize import Decoded, overflow_failure
from serve_app.engines.paraformer.onnx_pack import decoder_of, read_onnx_shape
from serve_app.engines.paraformer.timestamps import ENCODER_FRAME_MS, FINE_FRAMES, FiringWeights
from serve_app.packs.pack import PackContents

_WARM_UP_SAMPLES = 16_000
_LEAST_SEVERITY = 3  # errors


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """Options of the engine.

    Attributes:
        num_threads: threads of a call.
    """

    num_threads: int = 1


@dataclass(frozen=True, slots=True)
class OnnxFacts:
    """Facts about a loaded engine."""

    pack: str
    model_class: str
    checksum: str
    source_checksum: str
    dtype: str
    num_parameters: int


class ParaformerOnnxEngine(DecodingEngine):
    """Recognizes Mandarin with an ONNX pack; implements `ports.Recognizer`.

    The utterances of a batch run one by one. So a result cannot depend on the rest of the batch,
    even if the graph quantizes activations with one scale per call.

    Args:
        pack: written by `paraserve models export`.
        options: threads.

    Raises:
        PackError: the pack is of another kind, or onnxruntime cannot load its graphs.
        ConfigurationError: fewer than one thread.
    """

    max_in_flight = 1
    is_reentrant = False  # onnxruntime allows concurrent calls, but that is untested

    def __init__(self, pack: PackContents, options: OnnxOptions | None = None) -> None:
        options = OnnxOptions() if options is None else options
        if options.num_threads < 1:
            raise ConfigurationError(f"num_threads is {options.num_threads}; it must be at least 1")
        self._pack = pack
        self._shape = read_onnx_shape(pack)
        decoder = decoder_of(pack)
        _check_checksum(pack, decoder, self._shape.decoder_sha256)
        self._encoder = _open_session(pack, pack.weights, options)
        self._decoder = _open_session(pack, decoder, options)
        if pack.cmvn is None:
            raise PackCorrupt(pack.name, "the pack has no am.mvn", "Export the pack again")
        self._cmvn = pack.cmvn
        # The first pass allocates buffers and selects kernels.
        self.transcribe([_noise(_WARM_UP_SAMPLES)])

    def cost(self, num_samples: int) -> int:
        """Returns the encoder frames of an item; a batch costs the sum of its items."""
        return -(-num_frames(num_samples) // self._shape.lfr_n)

    def describe(self) -> OnnxFacts:
        return OnnxFacts(
            pack=self._pack.name,
            model_class=self._shape.source_class,
            checksum=self._pack.checksum,
            source_checksum=self._shape.source_checksum,
            dtype=self._shape.dtype,
            num_parameters=self._shape.num_parameters,
        )

    def _decode_audible(
        self, batch: list[Pcm], recognition_options: list[RecognitionOptions]
    ) -> list[Decoded | ChunkFailure]:
        return [self._run(pcm) for pcm in batch]

    def _run(self, pcm: Pcm) -> Decoded | ChunkFailure:
        frames, alphas, *heads = self._encode(pcm)
        if not np.isfinite(alphas).all():
            return overflow_failure()
        integration = _integrate(alphas, self._shape.predictor, self._shape.has_timestamp_head)
        count = integration.num_tokens
        if count == 0:
            return Decoded(np.empty(0, np.int64), np.empty(0, np.float32), None)
        shares = np.zeros((count, len(frames)), dtype=np.float32)
        shares[integration.tokens, integration.frames] = integration.shares
        ids, confidences = self._decoder.run(
            ["ids", "confidences"], {"shares": shares, "frames": frames}
        )
        if not np.isfinite(confidences).all():
            return overflow_failure()
        return Decoded(ids, confidences, self._weights(alphas, heads, count))

    def _weights(
        self, alphas: FloatArray, heads: list[FloatArray], num_tokens: int
    ) -> FiringWeights | None:
        if not heads:
            alphas = with_tail(alphas, self._shape.predictor)
            return FiringWeights(alphas, ENCODER_FRAME_MS, at_once=True)
        fine = _scaled(heads[0], num_tokens)
        if fine is None:
            return None
        return FiringWeights(fine, ENCODER_FRAME_MS // FINE_FRAMES, at_once=False)

    def _encode(self, pcm: Pcm) -> list[FloatArray]:
        power = power_spectra(pcm)
        found: list[FloatArray] = self._encoder.run(
            None,
            {
                "power": power,
                "stacking": stacking(len(power), self._shape.lfr_m, self._shape.lfr_n),
                "cmvn": self._cmvn,
            },
        )
        return found


def _open_session(
    pack: PackContents, path: Path, options: OnnxOptions
) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.num_threads
    settings.inter_op_num_threads = 1
    # Spinning threads would take the cores of other replicas.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # It would cache a memory plan for every utterance length.
    settings.enable_mem_pattern = False
    settings.log_severity_level = _LEAST_SEVERITY
    try:
        return onnxruntime.InferenceSession(
            str(path), sess_options=settings, providers=["CPUExecutionProvider"]
        )
    # onnxruntime's errors have no common base class.
    except Exception as error:
        raise PackCorrupt(
            pack.name,
            f"onnxruntime cannot load {path.name}: {error}",
            "Export the pack again with `paraserve models export`",
        ) from error


def _check_checksum(pack: PackContents, path: Path, expected: str) -> None:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise PackCorrupt(
            pack.name,
            f"{path.name}: sha256 is {found[:16]}…, which differs from config.yaml",
            "Export the pack again with `paraserve models export`",
        )


def _integrate(alphas: FloatArray, shape: CifShape, sequential: bool) -> Integration:
    num_rows = len(alphas)
    alphas = with_tail(alphas, shape)
    total = float(alphas.sum(dtype=np.float32))
    count = int(np.floor(total) if shape.tail_threshold > 0.0 else np.round(total))
    return fire(alphas, num_rows, count, shape.threshold, sequential)


def _scaled(alphas: FloatArray, num_tokens: int) -> FloatArray | None:
    """Scales the second head's weights to a sum of `num_tokens`; None if all are 0."""
    total = alphas.sum(dtype=np.float32)
    return alphas * (np.float32(num_tokens) / total) if total > 0.0 else None


def _noise(num_samples: int) -> Pcm:
    return np.random.default_rng(0).integers(-1000, 1000, num_samples).astype(np.int16)


NUM_BINS = 256

_PREEMPHASIS = np.float32(0.97)
_FFT_SIZE = 512
# Small enough that a block's spectra stay in a core's L2 cache.
_BLOCK_FRAMES = 256


def power_spectra(pcm: Pcm) -> npt.NDArray[np.float32]:
    """Returns the power spectrum of each 10 ms, without the bin at the Nyquist frequency.

    Args:
        pcm: samples, [n].

    Returns:
        float32 [T, 256] with T = (n - 400) // 160 + 1, or T = 0 below 400 samples.
    """
    count = num_frames(len(pcm))
    power = np.empty((count, NUM_BINS), dtype=np.float32)
    for first in range(0, count, _BLOCK_FRAMES):
        last = min(first + _BLOCK_FRAMES, count)
        samples = pcm[first * SHIFT_SAMPLES : (last - 1) * SHIFT_SAMPLES + FRAME_SAMPLES]
        windows = sliding_window_view(samples.astype(np.float32), FRAME_SAMPLES)[::SHIFT_SAMPLES]
        power[first:last] = _power(windows)
    return power


def _power(windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    centered = windows - windows.mean(axis=1, keepdims=True)
    emphasized = np.empty_like(centered)
    np.multiply(centered[:, :-1], -_PREEMPHASIS, out=emphasized[:, 1:])
    emphasized[:, 1:] += centered[:, 1:]
    emphasized[:, 0] = centered[:, 0] * (np.float32(1.0) - _PREEMPHASIS)
    emphasized *= _hamming()
    spectrum = np.fft.rfft(emphasized, n=_FFT_SIZE)[:, :NUM_BINS]
    power: npt.NDArray[np.float32] = np.square(spectrum.real) + np.square(spectrum.imag)
    return power


@functools.cache
def _hamming() -> npt.NDArray[np.float32]:
    return np.hamming(FRAME_SAMPLES).astype(np.float32)
