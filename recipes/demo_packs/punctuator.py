"""The small CT-Transformer: its configuration, its training and its scores."""

from __future__ import annotations

import logging
import random
import string
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from funasr.models.ct_transformer.model import CTTransformer
from torch import Tensor
from torch.nn import functional

from recipes.demo_packs.fitting import MovingAverage
from recipes.demo_packs.sentences import MARKS, draw_training_sentence
from recipes.demo_packs.vocabulary import UNKNOWN, punctuation_tokens, token_ids

log = logging.getLogger(__name__)
MARK_LIST = ("<unk>", "_", "，", "。", "？", "、")
_IGNORE_ID, _NO_MARK_ID = 0, 1
_UNKNOWN_SHARE, _FALLBACK_SHARE = 0.02, 0.015
_FALLBACKS = string.digits + string.ascii_lowercase


def punctuator_config() -> dict[str, Any]:
    """The keys of config.yaml, FunASR's own names."""
    return {
        "model": "CTTransformer",
        "model_conf": {
            "ignore_id": _IGNORE_ID,
            "embed_unit": 128,
            "att_unit": 128,
            "dropout_rate": 0.1,
            "punc_list": list(MARK_LIST),
            "punc_weight": [1.0] * len(MARK_LIST),
            "sentence_end_id": 3,
        },
        "encoder": "SANMEncoder",
        "encoder_conf": {
            "input_size": 128,
            "output_size": 128,
            "attention_heads": 4,
            "linear_units": 512,
            "num_blocks": 3,
            "dropout_rate": 0.1,
            "positional_dropout_rate": 0.1,
            "attention_dropout_rate": 0.0,
            "input_layer": "pe",
            "pos_enc_class": "SinusoidalPositionEncoder",
            "normalize_before": True,
            "kernel_size": 11,
            "sanm_shfit": 0,
            "selfattention_layer_type": "sanm",
            "padding_idx": 0,
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": UNKNOWN},
    }


def build_punctuator() -> CTTransformer:
    """Build FunASR's CTTransformer with fresh weights."""
    # FunASR registers the encoder under its name on import.
    import funasr.models.sanm.encoder  # noqa: F401

    config = punctuator_config()
    return CTTransformer(
        encoder=config["encoder"],
        encoder_conf=config["encoder_conf"],
        vocab_size=len(punctuation_tokens()),
        **config["model_conf"],
    )


@dataclass(frozen=True, slots=True)
class Marked:
    """Characters and the mark id that follows each."""

    characters: str
    marks: list[int]


def split_marks(sentence: str) -> Marked:
    """Split a punctuated text into characters and marks."""
    characters: list[str] = []
    marks: list[int] = []
    for character in sentence:
        if character in MARKS:
            marks[-1] = MARK_LIST.index(character)
        else:
            characters.append(character)
            marks.append(_NO_MARK_ID)
    return Marked("".join(characters), marks)


def draw_passage(rng: random.Random) -> Marked:
    """Draw windows as in production: they often end in the middle of a sentence."""
    wanted = rng.randint(6, 44)
    characters, marks = "", []
    skipped = rng.randint(1, 8) if rng.random() < 0.15 else 0
    while len(characters) < wanted + skipped:
        piece = split_marks(draw_training_sentence(rng, drill_share=0.0))
        characters += piece.characters
        marks += piece.marks
    end = wanted + skipped if rng.random() < 0.6 else len(characters)
    return Marked(characters[skipped:end], marks[skipped:end])


def fit_punctuator(num_steps: int, seed: int, batch_size: int = 16) -> CTTransformer:
    """Train for a number of steps and return the averaged model."""
    torch.manual_seed(seed)
    rng = random.Random(f"passages {seed}")
    ids = token_ids(punctuation_tokens())
    model = build_punctuator().train()
    average = MovingAverage(model, 0.998)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    begun = time.monotonic()
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 100, 2.02 - 2 * step / num_steps)
        text, lengths, marks = _batch([draw_passage(rng) for _ in range(batch_size)], ids, rng)
        scores, _ = model.punc_forward(text, lengths)
        loss = functional.cross_entropy(
            scores.transpose(1, 2), marks, ignore_index=_IGNORE_ID, label_smoothing=0.02
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        average.update(model)
        if step % 200 == 0:
            log.info("step %d loss %.4f after %.0f s", step, loss, time.monotonic() - begun)
    averaged: CTTransformer = average.module
    return averaged


def _batch(
    passages: list[Marked], ids: dict[str, int], rng: random.Random
) -> tuple[Tensor, Tensor, Tensor]:
    lengths = [len(passage.characters) for passage in passages]
    text = np.zeros((len(passages), max(lengths)), np.int64)
    marks = np.full(text.shape, _IGNORE_ID, np.int64)
    for row, passage in enumerate(passages):
        text[row, : lengths[row]] = [_disguise(ids[c], ids, rng) for c in passage.characters]
        marks[row, : lengths[row]] = passage.marks
    return torch.from_numpy(text), torch.tensor(lengths), torch.from_numpy(marks)


def _disguise(token: int, ids: dict[str, int], rng: random.Random) -> int:
    """Sometimes hide a character, so that the model tolerates unknown ones."""
    kind = rng.random()
    if kind < _UNKNOWN_SHARE:
        return ids[UNKNOWN]
    if kind < _UNKNOWN_SHARE + _FALLBACK_SHARE:
        return ids[rng.choice(_FALLBACKS)]
    return token


@torch.inference_mode()
def punctuate(model: CTTransformer, characters: str, ids: dict[str, int]) -> list[int]:
    """The mark id after each character, seen in windows of twenty as FunASR does."""
    done: list[int] = []
    kept = 0  # where the sentence under way begins
    while len(done) < len(characters):
        stop = min(len(characters), (len(done) // 20 + 1) * 20)
        tokens = [ids.get(c, ids[UNKNOWN]) for c in characters[kept:stop]]
        text = torch.tensor([tokens])
        scores, _ = model.punc_forward(text, torch.tensor([len(tokens)]))
        marks = scores[0].argmax(-1).tolist()
        done[kept:] = marks
        if stop < len(characters):
            ends = [i for i in range(2, len(marks) - 1) if MARK_LIST[marks[i]] in "。？"]
            kept += ends[-1] + 1 if ends else 0
    return done
