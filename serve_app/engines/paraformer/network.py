"""The Paraformer network and its variants, with sizes from config.yaml.

Source: Gao et al., "Paraformer: Fast and Accurate Parallel Transformer for
Non-autoregressive End-to-End Speech Recognition" (2022); Shi et al., "Achieving
Timestamp Prediction While Recognizing with Non-Autoregressive End-to-End ASR
Model" (2023) for the second predictor head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from serve_app.core.errors import PackCorrupt, PackError
from serve_app.engines.paraformer.cif import CifPredictor, CifShape
from serve_app.engines.paraformer.hotword_tokenizer import takes_hotwords
from serve_app.engines.paraformer.packing import PackedSequences
from serve_app.engines.paraformer.sanm import SanmDecoder, SanmEncoder, SanmShape
from serve_app.packs.pack import PackContents

_PREDICTOR_OF_CLASS = {
    "Paraformer": "CifPredictorV2",
    "BiCifParaformer": "CifPredictorV3",
    "SeacoParaformer": "CifPredictorV3",
}
_FRONTEND = {"fs": 16_000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10}
_UPSAMPLING = 3
_HOTWORD_PREFIXES = (
    "bias_encoder.",
    "bias_embed.",
    "lstm_proj.",
    "seaco_decoder.",
    "hotword_output_layer.",
)
_TRAINING_PREFIXES = ("ctc.", "decoder.embed.")


@dataclass(frozen=True, slots=True)
class TimestampHeadShape:
    """The second head of CifPredictorV3."""

    recurrent: bool
    after_context: bool
    smooth_factor: float
    noise_threshold: float


@dataclass(frozen=True, slots=True)
class ParaformerShape:
    """Sizes and constants of the network, from config.yaml."""

    encoder: SanmShape
    decoder: SanmShape
    num_attention_blocks: int
    predictor: CifShape
    timestamps: TimestampHeadShape | None
    lfr_m: int
    lfr_n: int
    input_size: int
    vocabulary_size: int


class TimestampPredictor(CifPredictor):
    """CifPredictorV3: a second head computes weights of 20 ms frames for token times."""

    def __init__(self, shape: CifShape, head: TimestampHeadShape) -> None:
        super().__init__(shape)
        self.head = head
        size = shape.size
        self.upsample_cnn = nn.ConvTranspose1d(size, size, _UPSAMPLING, _UPSAMPLING)
        self.blstm = (
            nn.LSTM(size, size, batch_first=True, bidirectional=True) if head.recurrent else None
        )
        self.cif_output2 = nn.Linear(2 * size if head.recurrent else size, 1)

    def fine_alphas(self, frames: torch.Tensor, layout: PackedSequences) -> list[torch.Tensor]:
        """Returns the second head's unscaled weights, float32 [3 * frames] per utterance."""
        frames = frames.float()
        source = self.context(frames, layout) if self.head.after_context else frames
        # Kernel equals stride: each output frame depends on one input frame.
        fine = self.upsample_cnn(source.T[None])[0].T
        parts = list(fine.split([_UPSAMPLING * length for length in layout.lengths]))
        if self.blstm is not None:
            packed, _ = self.blstm(pack_sequence(parts, enforce_sorted=False))
            parts = list(torch.nn.utils.rnn.unpack_sequence(packed))
        return [self._weigh(part) for part in parts]

    def _weigh(self, fine: torch.Tensor) -> torch.Tensor:
        alphas = torch.sigmoid(self.cif_output2(fine))[:, 0]
        return torch.relu(alphas * self.head.smooth_factor - self.head.noise_threshold)


class ParaformerNet(nn.Module):
    """Encoder, predictor and decoder under the names of FunASR's checkpoints."""

    def __init__(self, shape: ParaformerShape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = SanmEncoder(shape.input_size, shape.encoder)
        self.predictor = (
            CifPredictor(shape.predictor)
            if shape.timestamps is None
            else TimestampPredictor(shape.predictor, shape.timestamps)
        )
        self.decoder = SanmDecoder(shape.decoder, shape.num_attention_blocks, shape.vocabulary_size)


def parse_shape(pack: PackContents) -> ParaformerShape:
    """Reads the network's sizes from config.yaml.

    Raises:
        PackError: the engine does not support the class or an option.
        PackCorrupt: values are missing or invalid.
    """
    expected = _PREDICTOR_OF_CLASS.get(pack.model_class)
    if expected is None:
        raise PackError(
            pack.name,
            f"model class {pack.model_class} is not a recognizer that this engine runs",
            f"Choose a pack of class {', '.join(_PREDICTOR_OF_CLASS)}",
        )
    config = pack.config
    _require(pack, "frontend", config.get("frontend"), "WavFrontend", "WavFrontendOnline")
    _require(pack, "encoder", config.get("encoder"), "SANMEncoder")
    _require(pack, "decoder", config.get("decoder"), "ParaformerSANMDecoder")
    _require(pack, "predictor", config.get("predictor"), expected)
    try:
        return _read_shape(pack)
    except (KeyError, TypeError, ValueError) as error:
        raise PackCorrupt(
            pack.name,
            f"config.yaml lacks a value or has an invalid one: {error!r}",
            "Copy config.yaml again from the page of the model",
        ) from error


def _require(pack: PackContents, option: str, value: object, *accepted: object) -> None:
    if value not in accepted:
        raise PackError(
            pack.name,
            f"config.yaml asks for {option}: {value}, which this engine does not implement",
            f"Choose a pack with {option}: {' or '.join(str(item) for item in accepted)}",
        )


def _read_shape(pack: PackContents) -> ParaformerShape:
    config = pack.config
    encoder = config["encoder_conf"]
    decoder = config["decoder_conf"]
    frontend = config["frontend_conf"]
    _require(pack, "input_layer", encoder.get("input_layer", "conv2d"), "pe")
    _require(pack, "selfattention_layer_type", encoder.get("selfattention_layer_type"), "sanm")
    for option, standard in _FRONTEND.items():
        _require(pack, option, frontend.get(option, standard), standard)
    for conf in (encoder, decoder):
        _require(pack, "normalize_before", conf.get("normalize_before", True), True)
        _require(pack, "concat_after", conf.get("concat_after", False), False)
    size = int(encoder["output_size"])
    lfr_m = int(frontend.get("lfr_m", 1))
    return ParaformerShape(
        encoder=sanm_shape(size, encoder, kernel_size=11),
        decoder=sanm_shape(size, decoder, kernel_size=21),
        num_attention_blocks=int(decoder.get("att_layer_num", 6)),
        predictor=_cif_shape(size, config["predictor_conf"]),
        timestamps=_head_shape(pack, config["predictor_conf"]),
        lfr_m=lfr_m,
        lfr_n=int(frontend.get("lfr_n", 1)),
        input_size=80 * lfr_m,
        vocabulary_size=len(pack.tokens),
    )


def sanm_shape(size: int, conf: Mapping[str, Any], kernel_size: int) -> SanmShape:
    """Returns the sizes of a stack of layers from its section; defaults are FunASR's."""
    kernel_size = int(conf.get("kernel_size", kernel_size))
    shift = conf.get("sanm_shfit", 0)
    return SanmShape(
        size=size,
        num_heads=int(conf.get("attention_heads", 4)),
        feed_forward_size=int(conf.get("linear_units", 2048)),
        num_blocks=int(conf.get("num_blocks", 6)),
        kernel_size=kernel_size,
        # FunASR's decoder treats null as a causal convolution.
        kernel_shift=(kernel_size - 1) // 2 if shift is None else int(shift),
    )


def _cif_shape(size: int, conf: Mapping[str, Any]) -> CifShape:
    return CifShape(
        size=size,
        left=int(conf["l_order"]),
        right=int(conf["r_order"]),
        threshold=float(conf.get("threshold", 1.0)),
        smooth_factor=float(conf.get("smooth_factor", 1.0)),
        noise_threshold=float(conf.get("noise_threshold", 0.0)),
        tail_threshold=float(conf.get("tail_threshold", 0.0)),
    )


def _head_shape(pack: PackContents, conf: Mapping[str, Any]) -> TimestampHeadShape | None:
    if _PREDICTOR_OF_CLASS[pack.model_class] != "CifPredictorV3":
        return None
    _require(pack, "upsample_times", conf.get("upsample_times", 5), _UPSAMPLING)
    upsample_type = conf.get("upsample_type", "cnn")
    _require(pack, "upsample_type", upsample_type, "cnn", "cnn_blstm")
    return TimestampHeadShape(
        recurrent=upsample_type == "cnn_blstm",
        after_context=bool(conf.get("use_cif1_cnn", True)),
        smooth_factor=float(conf.get("smooth_factor2", 1.0)),
        noise_threshold=float(conf.get("noise_threshold2", 0.0)),
    )


def unused_prefixes(pack: PackContents) -> tuple[str, ...]:
    """Returns prefixes of checkpoint parts for training or hotwords only."""
    hotwords = _HOTWORD_PREFIXES if takes_hotwords(pack) else ()
    return (*_TRAINING_PREFIXES, *hotwords)
