"""Calibrates random networks so that their speed is that of trained ones.

The number of tokens determines the work of the decoder, and the number of sentence ends determines
how much text a punctuation model reads again. Uncalibrated random weights would give anything from
no token to one per frame.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from serve_app.engines.ct_transformer import CtTransformerNet
from serve_app.engines.features import apply_cmvn, lfr, log_mel
from serve_app.engines.paraformer.network import ParaformerNet
from serve_app.engines.paraformer.packing import PackedSequences
from serve_app.modeltools.random_packs.noise import TOKENS_PER_S, speech_like

WORDS_PER_MARK = 9.0

_FRAMES_PER_S = 1000 / 60
_SPREAD = 0.2  # of the predictor's scores; small, so that other sounds give the same rate
_NUM_WORDS = 400
# Relative scores of ，。？、; the first entry of the list is never chosen.
_MARK_SCORES = (-30.0, 0.0, 0.0, -0.5, -2.0, -2.0)
# Rounded, so that all machines write the same pack.
_DECIMALS = 3


def calibrate_recognizer(net: ParaformerNet, cmvn: torch.Tensor) -> None:
    """Sets the predictor's last layer so that speech gives TOKENS_PER_S tokens."""
    samples = torch.from_numpy(speech_like().astype(np.float32))
    features = apply_cmvn(lfr(log_mel(samples), net.shape.lfr_m, net.shape.lfr_n), cmvn)
    layout = PackedSequences([len(features)], features.device)
    with torch.inference_mode():
        frames = net.encoder(features, layout)
        context = net.predictor.context(frames, layout)
        scores = context @ net.predictor.cif_output.weight[0]
    scale = round(_SPREAD / float(scores.std()), _DECIMALS)
    wanted = TOKENS_PER_S / _FRAMES_PER_S
    bias = _solve(lambda bias: float(torch.sigmoid(scale * scores + bias).mean()) - wanted)
    with torch.no_grad():
        net.predictor.cif_output.weight.mul_(scale)
        net.predictor.cif_output.bias.fill_(bias)
    # Every third frame stands for a token's embedding.
    tokens = PackedSequences([len(frames[::3])], frames.device)
    with torch.inference_mode():
        scores = net.decoder(frames[::3], frames, tokens, layout).mean(dim=0)
    with torch.no_grad():
        # Otherwise a few entries with high mean scores would dominate.
        net.decoder.output_layer.bias.sub_(scores.round(decimals=_DECIMALS))


def calibrate_punctuator(net: CtTransformerNet) -> None:
    """Sets the classifier's biases so that one word in WORDS_PER_MARK has a mark."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 3000, (_NUM_WORDS,), generator=generator)
    with torch.inference_mode():
        scores = net(ids, PackedSequences([_NUM_WORDS], ids.device)) - net.decoder.bias
    bias = torch.tensor(_MARK_SCORES) - scores.mean(dim=0)
    wanted = 1 / WORDS_PER_MARK
    bias[2:] += _solve(lambda offset: _share_of_marks(scores + bias, offset) - wanted)
    with torch.no_grad():
        net.decoder.bias.copy_(bias.round(decimals=_DECIMALS))


def _share_of_marks(scores: torch.Tensor, offset: float) -> float:
    """Returns the share of words with a mark if the marks' scores are raised by `offset`."""
    raised = scores.clone()
    raised[:, 2:] += offset
    return float((raised.argmax(dim=1) > 1).float().mean())


def _solve(excess: Callable[[float], float]) -> float:
    """Returns the root of an increasing function between -30 and 30, by bisection."""
    low, high = -30.0, 30.0
    while high - low > 10**-_DECIMALS / 2:
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle) > 0 else (middle, high)
    return round(low, _DECIMALS)
