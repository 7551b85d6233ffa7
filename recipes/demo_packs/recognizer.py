"""The small Paraformer: its configuration, losses and greedy decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from funasr.models.paraformer.cif_predictor import CifPredictorV2
from funasr.models.paraformer.model import Paraformer
from torch import Tensor, nn
from torch.nn import functional

from recipes.demo_packs.batches import IGNORE_ID, Batch
from recipes.demo_packs.features import WIDTH, Matrix
from recipes.demo_packs.vocabulary import END_ID

_WIDTH = 160
_SMOOTHING = 0.05  # of the labels
_SHARED = {
    "attention_heads": 4,
    "linear_units": 640,
    # The synthesizer never says the same thing twice: there is nothing to
    # regularize against, and dropout only slows a model this small down.
    "dropout_rate": 0.0,
    "positional_dropout_rate": 0.0,
    "kernel_size": 11,
    "sanm_shfit": 0,
}
_PREDICTOR = {"idim": _WIDTH, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45}
_FRONTEND = {
    "fs": 16000,
    "window": "hamming",
    "n_mels": 80,
    "frame_length": 25,
    "frame_shift": 10,
    "lfr_m": 7,
    "lfr_n": 6,
    "dither": 0.0,
}


def recognizer_config() -> dict[str, Any]:
    """The keys of config.yaml, FunASR's own names."""
    return {
        "model": "Paraformer",
        "model_conf": {
            "ctc_weight": 0.0,
            "lsm_weight": _SMOOTHING,
            "length_normalized_loss": False,
            "predictor_weight": 1.0,
            "predictor_bias": 1,
            "sampling_ratio": 0.5,
        },
        "encoder": "SANMEncoder",
        "encoder_conf": {
            **_SHARED,
            "output_size": _WIDTH,
            "num_blocks": 6,
            "attention_dropout_rate": 0.0,
            "input_layer": "pe",
            "pos_enc_class": "SinusoidalPositionEncoder",
            "normalize_before": True,
            "selfattention_layer_type": "sanm",
        },
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": {
            **_SHARED,
            "num_blocks": 2,
            "att_layer_num": 2,
            "self_attention_dropout_rate": 0.0,
            "src_attention_dropout_rate": 0.0,
        },
        "predictor": "CifPredictorV2",
        "predictor_conf": dict(_PREDICTOR),
        "frontend": "WavFrontend",
        "frontend_conf": dict(_FRONTEND),
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
    }


def build_recognizer(num_tokens: int) -> Paraformer:
    """Build FunASR's Paraformer with fresh weights."""
    config = recognizer_config()
    names = ("encoder", "decoder", "predictor")
    parts = {key: config[key] for name in names for key in (name, f"{name}_conf")}
    return Paraformer(
        **parts, **config["model_conf"], input_size=WIDTH, vocab_size=num_tokens, ignore_id=-1
    )


@dataclass(frozen=True, slots=True)
class Losses:
    """The parts of the loss, as numbers, and the accuracy in [0, 1]."""

    total: Tensor
    token: float
    frame: float
    drift: float
    accuracy: float


class Trainee(nn.Module):
    """A Paraformer with the head that training adds and the pack leaves out."""

    def __init__(self, num_tokens: int) -> None:
        """Build both with fresh weights."""
        super().__init__()
        self.model = build_recognizer(num_tokens)
        self.frame_head = nn.Linear(_WIDTH, num_tokens)

    def losses(self, batch: Batch, sampling_ratio: float, head_only: bool = False) -> Losses:
        """Compute the loss of a batch.

        The synthesizer's times do what a forced alignment would: every row learns
        the character spoken in it, and the running sum of alphas the place of
        every fire. Without them the predictor takes hours to find either.
        """
        num_rows, num_tokens = (torch.from_numpy(a) for a in (batch.num_rows, batch.num_tokens))
        hidden, _ = self.model.encode(torch.from_numpy(batch.rows), num_rows)
        mask = torch.arange(hidden.shape[1])[None, :] < num_rows[:, None]
        alphas = predict_alphas(self.model.predictor, hidden) * mask
        sums = alphas.cumsum(1)
        tokens = torch.from_numpy(batch.tokens)
        scores = self._token_scores(hidden, sums, num_rows, tokens, num_tokens, sampling_ratio)
        token_loss = functional.cross_entropy(
            scores.transpose(1, 2), tokens, ignore_index=IGNORE_ID, label_smoothing=_SMOOTHING
        )
        frame_loss = functional.cross_entropy(
            self.frame_head(hidden.detach() if head_only else hidden).transpose(1, 2),
            torch.from_numpy(batch.frame_tokens),
            ignore_index=IGNORE_ID,
        )
        step_loss, drift_loss, drift = _sum_losses(alphas, torch.from_numpy(batch.weights), mask)
        loss = 0.7 * token_loss + 0.6 * frame_loss + step_loss + 0.5 * drift_loss
        right = float((scores.argmax(-1) == tokens).sum() / num_tokens.sum())
        return Losses(loss, float(token_loss), float(frame_loss), float(drift), right)

    def _token_scores(
        self,
        hidden: Tensor,
        sums: Tensor,
        num_rows: Tensor,
        tokens: Tensor,
        num_tokens: Tensor,
        sampling_ratio: float,
    ) -> Tensor:
        # Decoding cannot scale: once the total is right, neither does training, and
        # the decoder learns to live with the fires that decoding will give it.
        total = sums[:, -1].clamp(min=1e-3)
        scale = torch.where((total - num_tokens).abs() < 1.0, 1.0, num_tokens / total)
        embeds = integrate(hidden, sums * scale[:, None], int(num_tokens.max()))
        if sampling_ratio > 0:
            self.model.sampling_ratio = sampling_ratio
            embeds, _ = self.model.sampler(hidden, num_rows, tokens, num_tokens, embeds)
        scores: Tensor = self.model.decoder(hidden, num_rows, embeds, num_tokens)[0]
        return scores


def _sum_losses(alphas: Tensor, wanted: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The losses of the alphas and of their running sum, and the mean drift in tokens."""
    num_rows = mask.sum()
    steps = functional.pad(wanted, (1, 0)).diff(dim=1).clamp(0.0, 1.0)
    step_loss = (functional.binary_cross_entropy(alphas, steps, reduction="none") * mask).sum()
    errors = (alphas.cumsum(1) - wanted).abs() * mask
    # Every alpha moves all sums after it: were this not flat far from its goal, a
    # long recording's drift would at first drown the other losses in the encoder.
    drift_loss = (2.0 * errors.square()).log1p().sum()
    return step_loss / num_rows, drift_loss / num_rows, errors.sum() / num_rows


def predict_alphas(predictor: CifPredictorV2, hidden: Tensor) -> Tensor:
    """The weight of each row, (batch, rows) in [0, 1], before any scaling."""
    context = torch.relu(predictor.cif_conv1d(predictor.pad(hidden.transpose(1, 2))))
    return torch.sigmoid(predictor.cif_output(context.transpose(1, 2))).squeeze(-1)


def integrate(hidden: Tensor, sums: Tensor, num_tokens: int) -> Tensor:
    """Continuous integrate-and-fire as one product.

    Token k takes of each row the part of its weight that lies in [k, k + 1] of the
    running sum, which is what FunASR's `cif_v1` does row by row.
    """
    edges = torch.arange(num_tokens, dtype=sums.dtype)[None, :, None]
    before = functional.pad(sums, (1, 0))[:, None, :-1]
    share = torch.minimum(sums[:, None, :], edges + 1) - torch.maximum(before, edges)
    return share.clamp(min=0) @ hidden


@torch.inference_mode()
def decode(model: Paraformer, rows: Matrix) -> tuple[list[int], list[float]]:
    """Decode one utterance of normalized rows, greedily.

    Returns:
        The token ids without end tokens, and the row numbers of all fires, the end
        token's included.
    """
    if not len(rows):
        return [], []
    hidden, num_rows = model.encode(torch.from_numpy(rows)[None], torch.tensor([len(rows)]))
    embeds, count, _, peaks = model.calc_predictor(hidden, num_rows)
    num_tokens = count.round().long()
    if int(num_tokens) < 1:
        return [], []
    scores, _ = model.decoder(hidden, num_rows, embeds, num_tokens)
    ids = scores[0].argmax(-1).tolist()
    fires = np.flatnonzero(peaks[0].numpy() >= 1.0 - 1e-4).tolist()
    return [token for token in ids if token > END_ID], [float(fire) for fire in fires]
