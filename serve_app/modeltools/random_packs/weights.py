"""Random checkpoints with the parameter names of the published ones, and vocabularies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice, product

import torch
from torch import nn

from serve_app.engines.campplus_network import CampplusCheckpoint
from serve_app.engines.ct_transformer import CtTransformerNet
from serve_app.engines.paraformer.network import ParaformerNet
from serve_app.engines.paraformer.sanm import SanmDecoder, SanmShape
from serve_app.modeltools.random_packs.architectures import Architecture
from serve_app.modeltools.random_packs.calibration import calibrate_punctuator, calibrate_recognizer

_OUTPUT_SCALE = 4.0  # scores far enough apart that rounding changes no token
_BIAS_SPREAD = 0.02
_AFTER_ATTENTION = ("linear_out.weight",)
_ATTENTION_SCALE = 0.2
_AFTER_RELU = ("w_2.weight", "cif_output.weight")


def random_recognizer(
    net: ParaformerNet, architecture: Architecture, cmvn: torch.Tensor, seed: int
) -> dict[str, torch.Tensor]:
    """Fills and calibrates the network; returns the whole checkpoint.

    Like a published checkpoint, it also has parameters for training and hotwords, which must be
    loaded or skipped.
    """
    generator = torch.Generator().manual_seed(seed)
    _fill(net, generator)
    with torch.no_grad():
        net.decoder.output_layer.weight.mul_(_OUTPUT_SCALE)
    net.eval()
    calibrate_recognizer(net, cmvn)
    size = net.shape.encoder.size
    embed = nn.Embedding(architecture.vocabulary_size, size)
    extra: dict[str, nn.Module] = {"decoder.embed.0": embed}
    if architecture.config["model"] == "SeacoParaformer":
        extra |= _hotword_branch(architecture, size)
    state = dict(net.state_dict())
    for prefix, module in extra.items():
        _fill(module, generator)
        state |= {f"{prefix}.{name}": value for name, value in module.state_dict().items()}
    return state


def random_punctuator(net: CtTransformerNet, seed: int) -> dict[str, torch.Tensor]:
    """Fills and calibrates the network; returns the whole checkpoint."""
    _fill(net, torch.Generator().manual_seed(seed))
    net.eval()
    calibrate_punctuator(net)
    return dict(net.state_dict())


def random_embedder(net: CampplusCheckpoint, seed: int) -> dict[str, torch.Tensor]:
    """Fills the network; returns the whole checkpoint."""
    generator = torch.Generator().manual_seed(seed)
    _fill(net, generator)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                _fill_normalization(module, generator)
    return dict(net.state_dict())


def _fill_normalization(norm: nn.BatchNorm1d | nn.BatchNorm2d, generator: torch.Generator) -> None:
    norm.reset_running_stats()
    if norm.affine:
        norm.weight.normal_(1.0, 0.1, generator=generator)
    if norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean.normal_(0.0, 0.1, generator=generator)
        norm.running_var.uniform_(0.5, 1.5, generator=generator)


def _hotword_branch(architecture: Architecture, size: int) -> dict[str, nn.Module]:
    conf: Mapping[str, int] = architecture.config["seaco_decoder_conf"]
    shape = SanmShape(
        size=size,
        num_heads=conf["attention_heads"],
        feed_forward_size=conf["linear_units"],
        num_blocks=conf["num_blocks"],
        kernel_size=conf["kernel_size"],
    )
    decoder = SanmDecoder(shape, conf["att_layer_num"], vocabulary_size=1)
    # hotword_output_layer replaces it.
    del decoder.output_layer
    return {
        "bias_encoder": nn.LSTM(size, size, num_layers=2, batch_first=True),
        "seaco_decoder": decoder,
        "hotword_output_layer": nn.Linear(size, architecture.vocabulary_size),
    }


def _fill(module: nn.Module, generator: torch.Generator) -> None:
    """Initializes every parameter so that activations stay near 1."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() > 1:
                fan_in = math.prod(parameter.shape[1:])
                parameter.normal_(0.0, 1 / math.sqrt(fan_in), generator=generator)
                if name.endswith(_AFTER_RELU):
                    # Otherwise inputs with a positive mean add the same vector to every frame
                    # in every layer, until all frames are alike.
                    parameter.sub_(parameter.mean(dim=1, keepdim=True))
                if name.endswith(_AFTER_ATTENTION):
                    # Random attention is nearly an average over all frames, so it also adds
                    # the same vector to each.
                    parameter.mul_(_ATTENTION_SCALE)
            elif "norm" in name and name.endswith("weight"):
                parameter.normal_(1.0, 0.1, generator=generator)
            else:
                parameter.normal_(0.0, _BIAS_SPREAD, generator=generator)


_FIRST, _LAST = ord("一"), ord("龥")
_CHARACTERS = tuple(chr(code) for code in range(_FIRST, _LAST + 1))


def speech_tokens(size: int) -> list[str]:
    """Returns a recognizer's vocabulary: single characters between the reserved entries."""
    return ["<blank>", "<s>", "</s>", *_CHARACTERS[: size - 4], "<unk>"]


def punctuation_tokens(size: int) -> list[str]:
    """Returns a punctuation vocabulary: all single characters, then pairs of them."""
    pairs = ("".join(pair) for pair in product(_CHARACTERS, repeat=2))
    words = [*_CHARACTERS, *islice(pairs, size - len(_CHARACTERS) - 1)]
    return ["<unk>", *words]
