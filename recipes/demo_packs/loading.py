"""Reading the demo packs back, for evaluation and the demo recordings."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from funasr.models.ct_transformer.model import CTTransformer
from funasr.models.paraformer.model import Paraformer

from recipes.demo_packs.features import Matrix, read_cmvn
from recipes.demo_packs.punctuator import build_punctuator
from recipes.demo_packs.recognizer import build_recognizer


def load_recognizer(folder: Path) -> tuple[Paraformer, Matrix, list[str]]:
    """Load the model in evaluation mode, its normalization and its tokens."""
    tokens: list[str] = json.loads((folder / "tokens.json").read_text())
    model = build_recognizer(len(tokens))
    model.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    return model.eval(), read_cmvn(folder / "am.mvn"), tokens


def load_punctuator(folder: Path) -> tuple[CTTransformer, list[str]]:
    """Load the model in evaluation mode and its tokens."""
    tokens: list[str] = json.loads((folder / "tokens.json").read_text())
    model = build_punctuator()
    model.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    return model.eval(), tokens
