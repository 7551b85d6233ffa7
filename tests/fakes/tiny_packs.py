"""Writes whole model packs with random weights, in FunASR's on-disk format."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from serve_app.engines.paraformer.hotword_network import HotwordNet, parse_hotword_shape
from serve_app.engines.paraformer.network import ParaformerNet, parse_shape
from serve_app.packs.pack import PackContents, open_pack


@dataclass(frozen=True, slots=True)
class TinyParaformer:
    """Sizes of a random Paraformer; the defaults run in milliseconds."""

    model_class: str = "Paraformer"
    size: int = 32
    num_heads: int = 4
    feed_forward_size: int = 64
    num_blocks: int = 2
    num_decoder_blocks: int = 2
    num_attention_blocks: int = 2
    kernel_size: int = 11
    kernel_shift: int = 0
    upsample_type: str = "cnn_blstm"
    use_cif1_cnn: bool = False
    vocabulary_size: int = 20
    num_hotword_blocks: int = 2
    bidirectional_bias: bool = False
    no_bias_id: int = 5
    seed: int = 0


def write_paraformer(directory: Path, tiny: TinyParaformer | None = None) -> Path:
    """Writes the pack and returns its directory; the same sizes give the same weights."""
    tiny = TinyParaformer() if tiny is None else tiny
    directory.mkdir(parents=True, exist_ok=True)
    tokens = ["<blank>", "<s>", "</s>", *_characters(tiny.vocabulary_size - 4), "<unk>"]
    _write_small_files(directory, _paraformer_config(tiny), tokens, cmvn_size=560)
    (directory / "model.pt").touch()  # so that the pack opens; written below
    net = ParaformerNet(parse_shape(open_pack(directory)))
    fill_at_random(net, tiny.seed)
    # About one token in three frames, and scores that are far from ties.
    with torch.no_grad():
        net.predictor.cif_output.weight.mul_(2.0)
        net.predictor.cif_output.bias.fill_(-1.0)
        net.decoder.output_layer.weight.mul_(4.0)
    state = dict(net.state_dict())
    if tiny.model_class == "SeacoParaformer":
        state |= _hotword_branch(open_pack(directory), tiny.seed)
        # FunASR spells words by it, and takes a word without it for unknown.
        spelled = "".join(f"{token} {token}\n" for token in tokens[3:-1])
        (directory / "seg_dict").write_text(spelled, encoding="utf-8")
    torch.save({"state_dict": state}, directory / "model.pt")
    return directory


def _hotword_branch(pack: PackContents, seed: int) -> dict[str, torch.Tensor]:
    branch = HotwordNet(parse_hotword_shape(pack))
    fill_at_random(branch, seed + 1)
    with torch.no_grad():
        branch.hotword_output_layer.weight.mul_(4.0)
        # About every other token is left to the recognizer.
        branch.hotword_output_layer.bias[branch.shape.no_bias_id] += 6.0
    return dict(branch.state_dict())


def tiny_paraformer(directory: Path, tiny: TinyParaformer | None = None) -> PackContents:
    """Writes the pack and opens it."""
    return open_pack(write_paraformer(directory, tiny))


def fill_at_random(module: nn.Module, seed: int) -> None:
    """Gives every parameter values that keep the activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                fan_in = math.prod(parameter.shape[1:])
                parameter.copy_(values / math.sqrt(fan_in))
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1.0 + 0.1 * values)
            else:
                parameter.copy_(0.1 * values)


def write_cmvn(path: Path, size: int) -> None:
    """Writes feature statistics: the mean is 10, the standard deviation 4."""
    shift = " ".join(["-10.0"] * size)
    scale = " ".join(["0.25"] * size)
    path.write_text(
        f"<Nnet>\n<Splice> {size} {size}\n[ 0 ]\n"
        f"<AddShift> {size} {size}\n<LearnRateCoef> 0 [ {shift} ]\n"
        f"<Rescale> {size} {size}\n<LearnRateCoef> 0 [ {scale} ]\n</Nnet>\n",
        encoding="utf-8",
    )


def _characters(count: int) -> list[str]:
    return [chr(ord("一") + index) for index in range(count)]


def _write_small_files(
    directory: Path, config: dict[str, Any], tokens: list[str], cmvn_size: int
) -> None:
    metas = {
        "init_param": "model.pt",
        "config": "config.yaml",
        "tokenizer_conf": {"token_list": "tokens.json"},
        "frontend_conf": {"cmvn_file": "am.mvn"},
    }
    (directory / "configuration.json").write_text(json.dumps({"file_path_metas": metas}))
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (directory / "tokens.json").write_text(json.dumps(tokens, ensure_ascii=False), "utf-8")
    write_cmvn(directory / "am.mvn", cmvn_size)


def _paraformer_config(tiny: TinyParaformer) -> dict[str, Any]:
    layers = {
        "attention_heads": tiny.num_heads,
        "linear_units": tiny.feed_forward_size,
        "kernel_size": tiny.kernel_size,
        "sanm_shfit": tiny.kernel_shift,
    }
    config: dict[str, Any] = {
        "model": tiny.model_class,
        "model_conf": {"ctc_weight": 0.0, "predictor_bias": 1},
        "encoder": "SANMEncoder",
        "encoder_conf": {
            **layers,
            "output_size": tiny.size,
            "num_blocks": tiny.num_blocks,
            "input_layer": "pe",
            "normalize_before": True,
            "selfattention_layer_type": "sanm",
        },
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": {
            **layers,
            "num_blocks": tiny.num_decoder_blocks,
            "att_layer_num": tiny.num_attention_blocks,
        },
        "predictor": "CifPredictorV2",
        "predictor_conf": {
            "idim": tiny.size,
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
    if tiny.model_class != "Paraformer":
        config["predictor"] = "CifPredictorV3"
        config["predictor_conf"] |= {
            "smooth_factor2": 0.25,
            "noise_threshold2": 0.01,
            "upsample_times": 3,
            "upsample_type": tiny.upsample_type,
            "use_cif1_cnn": tiny.use_cif1_cnn,
        }
    if tiny.model_class == "SeacoParaformer":
        config["model_conf"] |= {
            "inner_dim": tiny.size,
            "bias_encoder_type": "lstm",
            "bias_encoder_bid": tiny.bidirectional_bias,
            "NO_BIAS": tiny.no_bias_id,
        }
        config["seaco_decoder"] = "ParaformerSANMDecoder"
        config["seaco_decoder_conf"] = {
            **layers,
            "num_blocks": 1,
            "att_layer_num": tiny.num_hotword_blocks,
            "use_output_layer": False,
            "wo_input_layer": True,
        }
    return config
