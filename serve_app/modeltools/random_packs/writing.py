"""Writes a pack with random weights in FunASR's on-disk format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml

from serve_app.core.errors import PackFetchFailed, PackNotFound
from serve_app.engines.campplus import size_of
from serve_app.engines.campplus_network import CampplusCheckpoint
from serve_app.engines.ct_transformer import CtTransformerNet
from serve_app.engines.paraformer.network import ParaformerNet, parse_shape
from serve_app.engines.paraformer.sanm import SanmShape
from serve_app.modeltools.random_packs.architectures import ARCHITECTURES, MARKS, Architecture
from serve_app.modeltools.random_packs.weights import (
    punctuation_tokens,
    random_embedder,
    random_punctuator,
    random_recognizer,
    speech_tokens,
)
from serve_app.packs.pack import PackContents, open_pack
from serve_app.packs.registry import PackKind
from serve_app.packs.store import install

NOTE = "RANDOM WEIGHTS: for measuring speed and memory; the text is meaningless."

_TASKS = {
    PackKind.ASR: "auto-speech-recognition",
    PackKind.PUNCTUATION: "punctuation",
    PackKind.SPEAKERS: "speaker-verification",
}
_CMVN_SHIFT, _CMVN_SCALE = "-14.5", "0.3"  # typical for recordings of speech


def synthesize(name: str, directory: Path, seed: int = 0) -> PackContents:
    """Writes a pack of a published architecture; the same seed gives the same weights.

    Args:
        name: a key of `ARCHITECTURES`.
        directory: the target; must not exist, or be empty.
        seed: of the weights.

    Raises:
        PackNotFound: no architecture has this name.
        PackFetchFailed: the directory is not empty or cannot be written.
    """
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise PackNotFound(name, "no architecture has this name", f"Known: {known}")
    target = directory.expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise PackFetchFailed(name, f"{target} is taken", "Name another directory")
    try:
        install(
            target,
            is_good=lambda _: False,
            fill=lambda _, content: _fill(content, ARCHITECTURES[name], seed),
        )
    except OSError as error:
        problem = f"{target} cannot be written ({error.strerror or error})"
        raise PackFetchFailed(name, problem, "Choose another directory") from error
    return open_pack(target, name)


def _fill(content: Path, architecture: Architecture, seed: int) -> None:
    """Writes the files of the pack into an empty directory."""
    speech = architecture.kind is PackKind.ASR
    config = f"# {NOTE}\n" + yaml.safe_dump(
        architecture.config, allow_unicode=True, sort_keys=False
    )
    (content / "config.yaml").write_text(config, encoding="utf-8")
    metas: dict[str, Any] = {"init_param": "model.pt", "config": "config.yaml"}
    if architecture.vocabulary_size:
        tokens = (speech_tokens if speech else punctuation_tokens)(architecture.vocabulary_size)
        (content / "tokens.json").write_text(json.dumps(tokens, ensure_ascii=False), "utf-8")
        metas["tokenizer_conf"] = {"token_list": "tokens.json"}
    if speech:
        metas["frontend_conf"] = {"cmvn_file": "am.mvn"}
        _write_cmvn(content / "am.mvn", architecture)
    configuration = {
        "framework": "pytorch",
        "task": _TASKS[architecture.kind],
        "note": NOTE,
        "random_weights": {"seed": seed, "sizes_of": architecture.published_as},
        "model": {"type": "funasr"},
        "pipeline": {"type": "funasr-pipeline"},
        "file_path_metas": metas,
    }
    (content / "configuration.json").write_text(json.dumps(configuration, indent=2) + "\n", "utf-8")
    # A pack needs a weights file to be opened; the real one replaces it below.
    (content / "model.pt").touch()
    pack = open_pack(content, architecture.name)
    torch.save(_random_state(pack, architecture, seed), content / "model.pt")


def _random_state(
    pack: PackContents, architecture: Architecture, seed: int
) -> dict[str, torch.Tensor]:
    # On the meta device nothing is initialized needlessly.
    if architecture.kind is PackKind.ASR:
        with torch.device("meta"):
            recognizer = ParaformerNet(parse_shape(pack))
        recognizer.to_empty(device="cpu")
        return random_recognizer(recognizer, architecture, torch.from_numpy(pack.cmvn), seed)
    if architecture.kind is PackKind.SPEAKERS:
        with torch.device("meta"):
            embedder = CampplusCheckpoint(size_of(pack))
        embedder.to_empty(device="cpu")
        return random_embedder(embedder, seed)
    conf = architecture.config["encoder_conf"]
    shape = SanmShape(
        size=conf["output_size"],
        num_heads=conf["attention_heads"],
        feed_forward_size=conf["linear_units"],
        num_blocks=conf["num_blocks"],
        kernel_size=conf["kernel_size"],
    )
    with torch.device("meta"):
        punctuator = CtTransformerNet(len(pack.tokens), shape.size, shape, len(MARKS))
    punctuator.to_empty(device="cpu")
    return random_punctuator(punctuator, seed)


def _write_cmvn(path: Path, architecture: Architecture) -> None:
    """Writes one shift and one scale for all dimensions, in Kaldi's nnet1 text."""
    conf = architecture.config["frontend_conf"]
    size = conf["n_mels"] * conf["lfr_m"]
    layers = (("AddShift", _CMVN_SHIFT), ("Rescale", _CMVN_SCALE))
    lines = ["<Nnet>", f"<Splice> {size} {size}", "[ 0 ]"]
    for tag, value in layers:
        values = " ".join([value] * size)
        lines += [f"<{tag}> {size} {size}", f"<LearnRateCoef> 0 [ {values} ]"]
    path.write_text("\n".join([*lines, "</Nnet>", ""]), encoding="utf-8")
