"""Paraformer on the CPU with PyTorch: packed batches, whose results do not depend on the batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from serve_app.core.records import ChunkFailure, Pcm, RecognitionOptions
from serve_app.engines.devices import check_dtype, open_device
from serve_app.engines.features import apply_cmvn, lfr, log_mel, num_frames
from serve_app.engines.paraformer.cif import Integration, embed_tokens, integrate
from serve_app.engines.paraformer.cif_fire import with_tail
from serve_app.engines.paraformer.decoded import DecodingEngine
from serve_app.engines.paraformer.detokenize import Decoded, overflow_failure
from serve_app.engines.paraformer.hotword_tokenizer import takes_hotwords
from serve_app.engines.paraformer.hotwords import HotwordBranch
from serve_app.engines.paraformer.int8 import quantize_linears
from serve_app.engines.paraformer.network import (
    ParaformerNet,
    TimestampPredictor,
    parse_shape,
    unused_prefixes,
)
from serve_app.engines.paraformer.onednn import use_bfloat16, use_onednn
from serve_app.engines.paraformer.onednn_warmup import compile_kernels
from serve_app.engines.paraformer.packing import PackedSequences
from serve_app.engines.paraformer.replacing import release_checkpoint
from serve_app.engines.paraformer.timestamps import ENCODER_FRAME_MS, FINE_FRAMES, FiringWeights
from serve_app.packs.pack import PackContents, load_into

_WARM_UP_SAMPLES = 16_000
_DTYPES = ("float32", "bfloat16", "int8")


@dataclass(frozen=True, slots=True)
class ParaformerOptions:
    """Options of the CPU engine.

    Attributes:
        device: `cpu`, `cuda` or `cuda:1`, as in PyTorch.
        num_threads: CPU threads of the whole process. Two processes with one thread have more
            throughput than one with two.
        dtype: of the large matrices of encoder, decoder and hotword branch. `float32` is exact.
            `bfloat16` (only CPUs with AVX512-BF16 or AMX) takes about half the time and `int8`
            (any CPU) less, and both change few tokens. Their weights have half and a quarter of
            the size but are not shared between processes. Norms, softmax, CIF and the scores of
            the vocabulary stay in float32.
    """

    device: str = "cpu"
    num_threads: int = 1
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """Facts about a loaded engine."""

    pack: str
    model_class: str
    checksum: str
    device: str
    num_parameters: int
    hotwords: bool


class ParaformerEngine(DecodingEngine):
    """Recognizes Mandarin with a Paraformer pack; implements `ports.Recognizer`.

    The utterances of a batch are packed without padding and no layer crosses their boundaries, so
    that a result does not depend on the rest of the batch. Classes: Paraformer, BiCifParaformer and
    SeacoParaformer; only the last one supports hotwords.

    Args:
        pack: the model.
        options: device and threads.

    Raises:
        PackError: the pack cannot be run; see its message.
        DeviceUnavailable: the device is not on this machine.
        ConfigurationError: the dtype is unknown, or unsupported on this device or CPU.
    """

    max_in_flight = 1
    is_reentrant = True

    def __init__(self, pack: PackContents, options: ParaformerOptions | None = None) -> None:
        options = ParaformerOptions() if options is None else options
        self._device = open_device(options.device)
        if self._device.type == "cuda":
            # TF32 convolutions would change where tokens fire.
            torch.backends.cudnn.allow_tf32 = False
        check_dtype(options.dtype, self._device, _DTYPES)
        torch.set_num_threads(options.num_threads)
        self._pack = pack
        self._shape = parse_shape(pack)
        # On the meta device nothing is allocated or initialized before it is loaded.
        with torch.device("meta"):
            self._net = ParaformerNet(self._shape)
        load_into(self._net, pack, ignore_prefixes=unused_prefixes(pack))
        self._num_parameters = sum(parameter.numel() for parameter in self._net.parameters())
        self._net.to(self._device)
        self._branch = HotwordBranch(pack, self._device) if takes_hotwords(pack) else None
        if self._device.type == "cpu":
            self._prepare_layers(options.dtype)
        self._cmvn = torch.from_numpy(pack.cmvn).to(self._device)
        # The first pass reads the mapped weights and selects kernels.
        self.transcribe([_noise(_WARM_UP_SAMPLES)])

    def _prepare_layers(self, dtype: str) -> None:
        """Puts the linear layers into the form that is fastest on this CPU."""
        net = self._net
        if dtype == "float32":
            # The rest is a tenth of the work, and each kind of layer adds kernels.
            use_onednn(net.encoder.encoders)
            compile_kernels(net.encoder)
            return
        if dtype == "int8":
            quantize_linears(net.encoder)
            quantize_linears(net.decoder)
        else:
            use_bfloat16(net.encoder)
            for layers in (net.decoder.decoders, net.decoder.decoders2, net.decoder.decoders3):
                use_bfloat16(layers)
            if self._branch is not None:
                self._branch.use_bfloat16()
            compile_kernels(net.encoder)
        release_checkpoint(net)

    def cost(self, num_samples: int) -> int:
        """Returns the encoder frames of an item; a batch costs the sum of its items."""
        return -(-num_frames(num_samples) // self._shape.lfr_n)

    def describe(self) -> EngineFacts:
        return EngineFacts(
            pack=self._pack.name,
            model_class=self._pack.model_class,
            checksum=self._pack.checksum,
            device=str(self._device),
            num_parameters=self._num_parameters,
            hotwords=self._branch is not None,
        )

    @torch.inference_mode()
    def _decode_audible(
        self, batch: list[Pcm], recognition_options: list[RecognitionOptions]
    ) -> list[Decoded | ChunkFailure]:
        return self._run([self._features(pcm) for pcm in batch], recognition_options)

    def _features(self, pcm: Pcm) -> torch.Tensor:
        # astype copies: arrays from another process are read-only, which torch refuses.
        samples = torch.from_numpy(pcm.astype(np.float32)).to(self._device)
        return apply_cmvn(lfr(log_mel(samples), self._shape.lfr_m, self._shape.lfr_n), self._cmvn)

    def _run(
        self, features: list[torch.Tensor], recognition_options: list[RecognitionOptions]
    ) -> list[Decoded | ChunkFailure]:
        net = self._net
        layout = PackedSequences([len(rows) for rows in features], self._device)
        frames = net.encoder(torch.cat(features), layout)
        alphas = self._alphas(frames, layout)
        broken = [not bool(torch.isfinite(part).all()) for part in alphas]
        sequential = isinstance(net.predictor, TimestampPredictor)
        integrations = [
            integrate(torch.zeros_like(part) if bad else part, self._shape.predictor, sequential)
            for part, bad in zip(alphas, broken, strict=True)
        ]
        tokens = PackedSequences([item.num_tokens for item in integrations], self._device)
        confidences, ids = self._classify(frames, layout, tokens, integrations, recognition_options)
        weights = self._weights(frames, layout, alphas, integrations)
        results: list[Decoded | ChunkFailure] = []
        for index, (start, end) in enumerate(tokens.spans):
            if broken[index] or not np.isfinite(confidences[start:end]).all():
                results.append(overflow_failure())
            else:
                results.append(Decoded(ids[start:end], confidences[start:end], weights[index]))
        return results

    def _alphas(self, frames: torch.Tensor, layout: PackedSequences) -> list[torch.Tensor]:
        """Returns the weights of the frames, on the CPU, one row per utterance."""
        predictor = self._net.predictor
        if self._device.type != "cpu":
            return list(predictor(frames, layout).cpu().split(layout.lengths))
        # One by one: matrix kernels round differently for other batch sizes, and the last bit
        # of a sum near a whole number decides whether a token fires.
        return [
            predictor(frames[start:end], PackedSequences([end - start], self._device))
            for start, end in layout.spans
        ]

    def _classify(
        self,
        frames: torch.Tensor,
        layout: PackedSequences,
        tokens: PackedSequences,
        integrations: list[Integration],
        recognition_options: list[RecognitionOptions],
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Returns the probability and id of the best entry of each token."""
        if tokens.total == 0:
            return np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
        embeddings = embed_tokens(frames, layout, integrations).to(frames.dtype)
        decoder = self._net.decoder
        states = decoder.represent(embeddings, frames, tokens, layout)
        scores = torch.log_softmax(decoder.output_layer(states).float(), dim=-1)
        for (start, end), options in zip(tokens.spans, recognition_options, strict=True):
            words = (
                self._branch.encode(options.hotwords) if self._branch and options.hotwords else None
            )
            if self._branch is not None and words is not None and start < end:
                rows = slice(start, end)
                # One by one: see `_alphas`.
                hotword_scores = self._branch.score_hotwords(
                    embeddings[rows], states[rows], [end - start], [words]
                )
                scores[rows] = hotword_scores.apply_bias(scores[rows])
        best = scores.max(dim=-1)
        return best.values.exp().cpu().numpy(), best.indices.cpu().numpy()

    def _weights(
        self,
        frames: torch.Tensor,
        layout: PackedSequences,
        alphas: list[torch.Tensor],
        integrations: list[Integration],
    ) -> list[FiringWeights]:
        """Returns the weights for token times: those of the timestamp head, or the predictor's."""
        if not isinstance(self._net.predictor, TimestampPredictor):
            tailed = [with_tail(part.numpy(), self._shape.predictor) for part in alphas]
            return [FiringWeights(part, ENCODER_FRAME_MS, at_once=True) for part in tailed]
        parts = [part.cpu() for part in self._net.predictor.fine_alphas(frames, layout)]
        scaled = [
            (part * (item.num_tokens / part[None].sum(dim=-1))).numpy()
            for part, item in zip(parts, integrations, strict=True)
        ]
        fine_ms = ENCODER_FRAME_MS // FINE_FRAMES
        return [FiringWeights(part, fine_ms, at_once=False) for part in scaled]


def _noise(num_samples: int) -> Pcm:
    return np.random.default_rng(0).integers(-1000, 1000, num_samples).astype(np.int16)
