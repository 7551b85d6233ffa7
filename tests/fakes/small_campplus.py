"""A small CAM++ with random weights."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
import yaml

from serve_app.engines.campplus_network import CampplusCheckpoint, CampplusSize
from serve_app.modeltools.random_packs.weights import random_embedder

SMALL = CampplusSize(embedding_size=16, growth_rate=8, bn_size=2, init_channels=32)


def write_small_campplus(directory: Path, seed: int = 0) -> None:
    """Fills the directory with a pack whose weights follow from the seed."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {"model": "CAMPPlus", "model_conf": asdict(SMALL)}
    (directory / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    torch.save(random_embedder(CampplusCheckpoint(SMALL), seed), directory / "model.pt")
