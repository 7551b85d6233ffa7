"""Packs in FunASR's on-disk format.

FunASR says nothing when it loads half of a pack (a missing model.pt leaves
random weights, a token list of another length is skipped), so everything is
written to a folder beside the pack and only then renamed into its place.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from recipes.demo_packs.features import Matrix, write_cmvn
from recipes.demo_packs.punctuator import punctuator_config
from recipes.demo_packs.recognizer import recognizer_config
from recipes.demo_packs.sentences import all_characters
from recipes.demo_packs.vocabulary import punctuation_tokens, speech_tokens

RECOGNISER_NAME = "paraformer-demo"
PUNCTUATOR_NAME = "ct-punc-demo"


@dataclass(frozen=True, slots=True)
class PackFiles:
    """What a pack holds besides its weights."""

    name: str
    task: str
    config: dict[str, Any]
    tokens: list[str]
    card: str
    cmvn: Matrix | None = None


def export_recognizer(model: nn.Module, cmvn: Matrix, card: str, parent: Path) -> Path:
    """Write the recognizer's pack under `parent` and return its folder."""
    files = PackFiles(
        name=RECOGNISER_NAME,
        task="auto-speech-recognition",
        config=recognizer_config(),
        tokens=speech_tokens(),
        card=card,
        cmvn=cmvn,
    )
    return _write_pack(model, files, parent)


def export_punctuator(model: nn.Module, card: str, parent: Path) -> Path:
    """Write the punctuator's pack under `parent` and return its folder."""
    files = PackFiles(
        name=PUNCTUATOR_NAME,
        task="punctuation",
        config=punctuator_config(),
        tokens=punctuation_tokens(),
        card=card,
    )
    return _write_pack(model, files, parent)


def _write_pack(model: nn.Module, files: PackFiles, parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    partial, folder = parent / f".{files.name}.partial", parent / files.name
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    # Half the size; load_state_dict copies float16 into float32 modules.
    state = {key: tensor.detach().half() for key, tensor in model.state_dict().items()}
    torch.save(state, partial / "model.pt")
    text = yaml.safe_dump(files.config, allow_unicode=True, sort_keys=False)
    (partial / "config.yaml").write_text(text)
    lines = ",\n".join(json.dumps(token, ensure_ascii=False) for token in files.tokens)
    (partial / "tokens.json").write_text(f"[\n{lines}\n]\n")
    (partial / "MODEL_CARD.md").write_text(files.card)
    metas: dict[str, Any] = {
        "init_param": "model.pt",
        "config": "config.yaml",
        "tokenizer_conf": {"token_list": "tokens.json"},
    }
    if files.cmvn is not None:
        write_cmvn(partial / "am.mvn", files.cmvn)
        segments = "".join(f"{character} {character}\n" for character in all_characters())
        (partial / "seg_dict").write_text(segments)
        metas["tokenizer_conf"]["seg_dict_file"] = "seg_dict"
        metas["frontend_conf"] = {"cmvn_file": "am.mvn"}
    (partial / "configuration.json").write_text(
        json.dumps(
            {
                "framework": "pytorch",
                "task": files.task,
                "model": {"type": "funasr"},
                "pipeline": {"type": "funasr-pipeline"},
                "model_name_in_hub": {"ms": "", "hf": ""},
                "file_path_metas": metas,
            },
            indent=2,
        )
        + "\n"
    )
    _replace(partial, folder)
    return folder


def _replace(partial: Path, folder: Path) -> None:
    retired = folder.with_name(f".{folder.name}.retired")
    shutil.rmtree(retired, ignore_errors=True)
    if folder.exists():
        folder.rename(retired)
    partial.rename(folder)
    shutil.rmtree(retired, ignore_errors=True)
