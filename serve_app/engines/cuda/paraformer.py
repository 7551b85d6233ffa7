"""Paraformer on a CUDA device; implements `ports.Recognizer`."""

from __future__ import annotations

import logging
import time
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from serve_app.core.records import ChunkFailure, Pcm, RecognitionOptions
from serve_app.engines.cuda.buckets import Bucket, BucketPlan
from serve_app.engines.cuda.hotword_bias import HotwordsByIndex
from serve_app.engines.cuda.network import GpuParaformerNet
from serve_app.engines.cuda.options import GpuOptions, WarmUp, configure_device
from serve_app.engines.cuda.readback import Readback
from serve_app.engines.cuda.streams import (
    MAX_IN_FLIGHT,
    BatchRun,
    DeviceStream,
    IntArray,
    Sizes,
    on_device,
)
from serve_app.engines.cuda.weights import RangeWatch
from serve_app.engines.devices import open_device
from serve_app.engines.paraformer.cif_fire import CifShape, with_tail
from serve_app.engines.paraformer.cpu import EngineFacts
from serve_app.engines.paraformer.decoded import DecodingEngine
from serve_app.engines.paraformer.detokenize import Decoded, overflow_failure
from serve_app.engines.paraformer.timestamps import ENCODER_FRAME_MS, FINE_FRAMES, FiringWeights
from serve_app.packs.pack import PackContents

_LOG = logging.getLogger(__name__)
_WARM_UP_SAMPLES = 80_000
_WARM_UP_AMPLITUDES = (30.0, 1_000.0, 12_000.0)
_LITTLE_HEADROOM = 2.0
_NO_HOTWORDS: HotwordsByIndex = {}


class GpuParaformer(DecodingEngine):
    """Recognizes Mandarin with a Paraformer pack on a CUDA device.

    As in `ParaformerEngine`, utterances are packed and no layer crosses their boundaries; in
    float32 the tokens are the same. Matrix products of another bucket may round the last bit
    differently, so a result can depend on the batch size only where two words score almost
    equally. `transcribe` may be called by `max_in_flight` threads at a time; it raises
    `torch.cuda.OutOfMemoryError` if the batch is too large for the free memory. Packs of class
    SeacoParaformer support hotwords.

    Args:
        pack: the model.
        options: device, type and limits.

    Raises:
        PackError: the pack cannot be run; see its message.
        DeviceUnavailable: the device is not on this machine.
        ConfigurationError: the dtype is unknown, or the model overflows it.
    """

    max_in_flight = MAX_IN_FLIGHT
    is_reentrant = False  # another call would wait for a slot

    def __init__(self, pack: PackContents, options: GpuOptions | None = None) -> None:
        options = GpuOptions() if options is None else options
        dtype = options.torch_dtype
        self._device = open_device(options.device)
        configure_device(self._device, options.memory_fraction)
        self._pack = pack
        self._plan = BucketPlan(options.max_batch_rows, options.tokens_per_frame)
        with on_device(self._device):
            buckets = self._plan.buckets()
            net = GpuParaformerNet(pack, self._device, dtype, buckets[0])
            self._net = net
            self._stream = DeviceStream(
                self._device,
                torch.int16,
                self._sizes(buckets[0]),
                net.compute,
                net.finish,
                options.max_graphs,
            )
            self.warm_up = self._warm_up(buckets, dtype, options)

    def cost(self, num_samples: int) -> int:
        """Returns the encoder frames of an item; a batch costs the sum of its items."""
        return self._net.frontend.num_rows(num_samples)

    def describe(self) -> EngineFacts:
        return EngineFacts(
            pack=self._pack.name,
            model_class=self._pack.model_class,
            checksum=self._pack.checksum,
            device=str(self._device),
            num_parameters=self._net.num_parameters,
            hotwords=self._net.hotword_bias is not None,
        )

    def _decode_audible(
        self, batch: list[Pcm], recognition_options: list[RecognitionOptions]
    ) -> list[Decoded | ChunkFailure]:
        hotwords_by_index = {
            index: options.hotwords
            for index, options in enumerate(recognition_options)
            if options.hotwords
        }
        with on_device(self._device):
            return self._run(batch, hotwords_by_index)

    def _run(
        self, batch: list[Pcm], hotwords_by_index: HotwordsByIndex
    ) -> list[Decoded | ChunkFailure]:
        lengths = [self.cost(len(pcm)) for pcm in batch]
        bucket = self._plan.fit(lengths)
        graph = bucket is not None
        if bucket is None:
            bucket = self._plan.exact_bucket(lengths)
        readback = self._run_bucket(bucket, batch, graph, hotwords_by_index)
        num_tokens = int(readback.counts.sum())
        if num_tokens > bucket.tokens:
            _LOG.info(
                "%d tokens in %d frames exceed the bucket: run again", num_tokens, sum(lengths)
            )
            bucket = self._plan.exact_bucket(lengths, num_tokens)
            readback = self._run_bucket(
                bucket, batch, graph=False, hotwords_by_index=hotwords_by_index
            )
        shape = self._net.shape
        return _split_readback(
            readback, lengths, shape.predictor if shape.timestamps is None else None
        )

    def _run_bucket(
        self,
        bucket: Bucket,
        batch: list[Pcm],
        graph: bool,
        hotwords_by_index: HotwordsByIndex = _NO_HOTWORDS,
    ) -> Readback:
        frontend = self._net.frontend

        def fill(samples: IntArray, lengths: npt.NDArray[np.int32]) -> None:
            at = 0
            for index, pcm in enumerate(batch):
                lengths[index] = len(pcm)
                room = (frontend.num_rows(len(pcm)) + 1) * frontend.slot_samples
                used = min(len(pcm), room)
                samples[at : at + used] = pcm[:used]
                at += room

        # Only the used part of the bucket is copied.
        filled = sum(map(self.cost, map(len, batch)))
        used = frontend.num_samples(filled, len(batch))
        layout, hotword_bias = self._net.layout(bucket), self._net.hotword_bias
        after = None
        if hotword_bias is not None and hotwords_by_index:
            after = partial(hotword_bias.apply_bias, layout, hotwords_by_index)
        row = self._stream.run(BatchRun(bucket, self._sizes(bucket), used, graph, after), fill)
        return layout.read(row)

    def _sizes(self, bucket: Bucket) -> Sizes:
        room = self._net.frontend.num_samples(bucket.rows, bucket.sequences)
        return Sizes(room, bucket.sequences, self._net.layout(bucket).num_bytes)

    def _warm_up(self, buckets: list[Bucket], dtype: torch.dtype, options: GpuOptions) -> WarmUp:
        started_s = time.perf_counter()
        watch = RangeWatch(dtype)
        for amplitude in _WARM_UP_AMPLITUDES:
            self._watch_range(_speech_like(amplitude), watch)
        watch.check_finite()
        if watch.headroom < _LITTLE_HEADROOM:
            _LOG.warning("activations are close to the limit of %s: bfloat16 is safer", dtype)
        graphs = options.max_graphs if self._device.type == "cuda" else 0
        for bucket in buckets[:graphs]:
            if time.perf_counter() - started_s > options.warm_up_s:
                break
            self._run_bucket(bucket, [_speech_like(1_000.0)], graph=True)
        self.transcribe([_speech_like(1_000.0)])
        if self._net.hotword_bias is not None:
            example = RecognitionOptions(hotwords=self._net.hotword_bias.branch.example())
            self.transcribe([_speech_like(1_000.0)], [example])
        kernels = self._net.kernels
        return WarmUp(
            wall_s=time.perf_counter() - started_s,
            num_graphs=self._stream.num_graphs,
            num_buckets=len(buckets),
            headroom=watch.headroom,
            attention=getattr(kernels.attend, "__name__", "attention"),
            memory=getattr(kernels.fsmn_memory, "__name__", "memory"),
        )

    @torch.inference_mode()
    def _watch_range(self, pcm: Pcm, watch: RangeWatch) -> None:
        """Runs one pass without a graph, in which every layer's output is checked."""
        bucket = self._plan.exact_bucket([self.cost(len(pcm))])
        sizes = self._sizes(bucket)
        samples = torch.zeros(sizes.payload, dtype=torch.int16)
        samples[: len(pcm)] = torch.from_numpy(pcm)
        self._net.compute(
            bucket,
            samples.to(self._device),
            torch.tensor([len(pcm)], dtype=torch.int32, device=self._device),
            torch.zeros(sizes.result_bytes, dtype=torch.uint8, device=self._device),
            watch,
        )


def _split_readback(
    readback: Readback, lengths: list[int], shape: CifShape | None
) -> list[Decoded | ChunkFailure]:
    """Returns one result per utterance.

    Args:
        readback: of the batch.
        lengths: in encoder frames.
        shape: of the predictor whose weights were read back; None for a timestamp head.
    """
    results: list[Decoded | ChunkFailure] = []
    token, row = 0, 0
    for index, length in enumerate(lengths):
        end = token + int(readback.counts[index])
        confidences = readback.confidences[token:end]
        if readback.broken[index] or not np.isfinite(confidences).all():
            results.append(overflow_failure())
        else:
            weights = None
            if end > token:
                weights = _weights(readback.alphas, row, length, end - token, shape)
            results.append(Decoded(readback.ids[token:end], confidences, weights))
        token, row = end, row + length
    return results


def _weights(
    alphas: npt.NDArray[np.float32], row: int, length: int, num_tokens: int, shape: CifShape | None
) -> FiringWeights:
    if shape is not None:
        tailed = with_tail(alphas[row : row + length], shape)
        return FiringWeights(tailed, ENCODER_FRAME_MS, at_once=True)
    fine = _scaled(alphas[FINE_FRAMES * row : FINE_FRAMES * (row + length)], num_tokens)
    return FiringWeights(fine, ENCODER_FRAME_MS // FINE_FRAMES, at_once=False)


def _scaled(fine_alphas: npt.NDArray[np.float32], num_tokens: int) -> npt.NDArray[np.float32]:
    """Scales the weights to a sum of `num_tokens`, in the precision of ParaformerEngine."""
    weights = torch.from_numpy(fine_alphas)
    scaled: npt.NDArray[np.float32] = (weights * (num_tokens / weights[None].sum(dim=-1))).numpy()
    return scaled


def _speech_like(amplitude: float) -> Pcm:
    """Returns modulated tones over noise, at which tokens fire."""
    time_s = np.arange(_WARM_UP_SAMPLES) / 16_000
    voice = sum(np.sin(2 * np.pi * 140 * order * time_s) / order for order in range(1, 9))
    envelope = np.clip(np.sin(2 * np.pi * 2.5 * time_s), 0.0, 1.0)
    noise = np.random.default_rng(0).normal(0.0, 0.05, _WARM_UP_SAMPLES)
    samples: Pcm = np.clip(amplitude * (voice * envelope + noise), -32_768, 32_767).astype(np.int16)
    return samples
