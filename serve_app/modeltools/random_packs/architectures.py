"""Sizes of the published models, in the format of config.yaml.

Source: Paraformer-large and SeACo as in their packs (encoder of 50 blocks of 512,
decoder of 16; bias decoder of 6 blocks of 1024 with 21 taps). ct-punc-small:
256 wide, 8 heads, 4 blocks. For paraformer-small and ct-punc the sizes give the published numbers
of parameters: 68 million in 275 MB, and 1.1 GB, of which 0.97 GB is the embedding of 471,067 words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serve_app.packs.registry import PackKind

MARKS = ("<unk>", "_", "，", "。", "？", "、")


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model that can be synthesized.

    Attributes:
        name: of the pack.
        published_as: ModelScope id of the model with these sizes.
        kind: recognizer, punctuation or speaker model.
        vocabulary_size: entries of tokens.json; 0 for a model without one.
        config: content of config.yaml.
    """

    name: str
    published_as: str
    kind: PackKind
    vocabulary_size: int
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Stack:
    """Sizes that encoder and decoder share."""

    size: int
    num_heads: int
    feed_forward_size: int

    def conf(self, num_blocks: int, kernel_size: int = 11) -> dict[str, Any]:
        return {
            "attention_heads": self.num_heads,
            "linear_units": self.feed_forward_size,
            "num_blocks": num_blocks,
            "kernel_size": kernel_size,
            "sanm_shfit": 0,
        }


_LARGE = _Stack(512, 4, 2048)
_SMALL = _Stack(320, 4, 1280)


def _encoder(stack: _Stack, num_blocks: int) -> dict[str, Any]:
    return {
        "encoder": "SANMEncoder",
        "encoder_conf": {
            "output_size": stack.size,
            **stack.conf(num_blocks),
            "dropout_rate": 0.1,
            "positional_dropout_rate": 0.1,
            "attention_dropout_rate": 0.1,
            "input_layer": "pe",
            "pos_enc_class": "SinusoidalPositionEncoder",
            "normalize_before": True,
            "selfattention_layer_type": "sanm",
        },
    }


def _decoder(stack: _Stack, num_blocks: int) -> dict[str, Any]:
    conf = stack.conf(num_blocks) | {"att_layer_num": num_blocks, "dropout_rate": 0.1}
    return {"decoder": "ParaformerSANMDecoder", "decoder_conf": conf}


def _recognizer(stack: _Stack, num_blocks: int, num_decoder_blocks: int) -> dict[str, Any]:
    return {
        "model": "Paraformer",
        "model_conf": {"ctc_weight": 0.0, "predictor_bias": 1, "sampling_ratio": 0.75},
        **_encoder(stack, num_blocks),
        **_decoder(stack, num_decoder_blocks),
        "predictor": "CifPredictorV2",
        "predictor_conf": {
            "idim": stack.size,
            "threshold": 1.0,
            "l_order": 1,
            "r_order": 1,
            "tail_threshold": 0.45,
        },
        "frontend": "WavFrontend",
        "frontend_conf": {
            "fs": 16_000,
            "window": "hamming",
            "n_mels": 80,
            "frame_length": 25,
            "frame_shift": 10,
            "lfr_m": 7,
            "lfr_n": 6,
            "dither": 0.0,
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
    }


def _seaco() -> dict[str, Any]:
    config = _recognizer(_LARGE, 50, 16)
    config["model"] = "SeacoParaformer"
    config["model_conf"] |= {
        "inner_dim": _LARGE.size,
        "bias_encoder_type": "lstm",
        "bias_encoder_bid": False,
        "seaco_weight": 1.0,
        "NO_BIAS": 8377,
    }
    config["predictor"] = "CifPredictorV3"
    config["predictor_conf"] |= {
        "smooth_factor2": 0.25,
        "noise_threshold2": 0.01,
        "upsample_times": 3,
        "upsample_type": "cnn_blstm",
        "use_cif1_cnn": False,
    }
    config["seaco_decoder"] = "ParaformerSANMDecoder"
    config["seaco_decoder_conf"] = _Stack(512, 4, 1024).conf(4, kernel_size=21) | {
        "att_layer_num": 6,
        "use_output_layer": False,
        "wo_input_layer": True,
    }
    return config


def _punctuator(stack: _Stack, num_blocks: int) -> dict[str, Any]:
    config = _encoder(stack, num_blocks)
    config["encoder_conf"] |= {"input_size": stack.size, "padding_idx": 0}
    return {
        "model": "CTTransformer",
        "model_conf": {
            "ignore_id": 0,
            "embed_unit": stack.size,
            "att_unit": stack.size,
            "dropout_rate": 0.1,
            "punc_list": list(MARKS),
            "punc_weight": [1.0] * len(MARKS),
            "sentence_end_id": 3,
        },
        **config,
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>"},
    }


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            "paraformer-large",
            "iic/speech_paraformer-large_asr_nat-zh-cn-16k-common-vocab8404-pytorch",
            PackKind.ASR,
            8404,
            _recognizer(_LARGE, 50, 16),
        ),
        Architecture(
            "paraformer-small",
            "iic/speech_paraformer_asr_nat-zh-cn-16k-common-vocab8358-tensorflow1",
            PackKind.ASR,
            8358,
            _recognizer(_SMALL, 40, 12),
        ),
        Architecture(
            "seaco-paraformer-large",
            "iic/speech_seaco_paraformer_large_asr_nat-zh-cn-16k-common-vocab8404-pytorch",
            PackKind.ASR,
            8404,
            _seaco(),
        ),
        Architecture(
            "ct-punc",
            "iic/punc_ct-transformer_cn-en-common-vocab471067-large",
            PackKind.PUNCTUATION,
            471_067,
            _punctuator(_Stack(516, 12, 2048), 12),
        ),
        Architecture(
            "ct-punc-small",
            "iic/punc_ct-transformer_zh-cn-common-vocab272727-pytorch",
            PackKind.PUNCTUATION,
            272_727,
            _punctuator(_Stack(256, 8, 1024), 4),
        ),
        Architecture(
            "campplus",
            "iic/speech_campplus_sv_zh-cn_16k-common",
            PackKind.SPEAKERS,
            0,
            {
                "model": "CAMPPlus",
                "model_conf": {
                    "feat_dim": 80,
                    "embedding_size": 192,
                    "growth_rate": 32,
                    "bn_size": 4,
                    "init_channels": 128,
                    "config_str": "batchnorm-relu",
                    "output_level": "segment",
                },
            },
        ),
    )
}
