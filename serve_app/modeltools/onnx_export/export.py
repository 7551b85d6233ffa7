"""Writes an ONNX pack from a PyTorch pack of the Paraformer family."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import onnx
import torch
import yaml

from serve_app.core.errors import PackError, PackFetchFailed
from serve_app.engines.paraformer.network import ParaformerNet, parse_shape, unused_prefixes
from serve_app.engines.paraformer.onnx_pack import (
    DECODER_NAME,
    ENCODER_NAME,
    ONNX_CLASS,
    ONNX_KIND,
    SECTION,
    OnnxShape,
)
from serve_app.modeltools.onnx_export.decoder_graph import decoder_graph
from serve_app.modeltools.onnx_export.encoder_graph import encoder_graph
from serve_app.modeltools.onnx_export.int8 import Int8Writer
from serve_app.modeltools.onnx_export.nodes import GraphWriter
from serve_app.packs.integrity import Manifest, record_files, sha256_of
from serve_app.packs.pack import PackContents, load_into, open_pack
from serve_app.packs.store import install

DTYPES = {"float32": GraphWriter, "int8": Int8Writer}
_CMVN_NAME, _TOKENS_NAME, _CONFIG_NAME = "am.mvn", "tokens.json", "config.yaml"
_REPLACED = ("model_conf", "encoder", "encoder_conf", "decoder", "decoder_conf")


def export(pack: PackContents, directory: Path, dtype: str = "int8") -> PackContents:
    """Writes the pack as graphs for onnxruntime.

    The hotword branch of a SeacoParaformer is left out: the exported pack
    recognizes as the model does without hotwords.

    Args:
        pack: a recognizer of class Paraformer, BiCifParaformer or SeacoParaformer.
        directory: the target; must not exist, or be empty.
        dtype: of the large products, `float32` or `int8`.

    Raises:
        PackError: the pack is not such a recognizer, is damaged, or the dtype is unknown.
        PackFetchFailed: the directory is not empty or cannot be written.
    """
    if dtype not in DTYPES:
        raise PackError(pack.name, f"dtype {dtype!r} is unknown", f"Use {' or '.join(DTYPES)}")
    target = directory.expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise PackFetchFailed(pack.name, f"{target} is taken", "Name another directory")
    net = _load(pack)
    name = f"{Path(pack.name).name}-onnx-{dtype}"
    try:
        install(
            target,
            is_good=lambda _: False,
            fill=lambda _, content: _fill(content, pack, net, dtype, name),
        )
    except OSError as error:
        problem = f"{target} cannot be written ({error.strerror or error})"
        raise PackFetchFailed(pack.name, problem, "Choose another directory") from error
    return open_pack(target, name)


def _load(pack: PackContents) -> ParaformerNet:
    with torch.device("meta"):
        net = ParaformerNet(parse_shape(pack))
    load_into(net, pack, ignore_prefixes=unused_prefixes(pack))
    return net


def _fill(content: Path, pack: PackContents, net: ParaformerNet, dtype: str, name: str) -> None:
    """Writes the files of the pack into an empty directory."""
    writer = DTYPES[dtype]
    onnx.save(encoder_graph(writer(), net), content / ENCODER_NAME)
    onnx.save(decoder_graph(writer(), net), content / DECODER_NAME)
    _copy_statistics(pack, content / _CMVN_NAME)
    tokens = json.dumps(pack.tokens, ensure_ascii=False)
    (content / _TOKENS_NAME).write_text(tokens, encoding="utf-8")
    shape = OnnxShape(
        dtype=dtype,
        source_class=pack.model_class,
        source_checksum=pack.checksum,
        decoder_sha256=sha256_of(content / DECODER_NAME),
        lfr_m=net.shape.lfr_m,
        lfr_n=net.shape.lfr_n,
        predictor=replace(net.shape.predictor),
        num_parameters=sum(parameter.numel() for parameter in net.parameters()),
    )
    config = {key: value for key, value in pack.config.items() if key not in _REPLACED}
    config |= {"model": ONNX_CLASS, SECTION: shape.section()}
    text = yaml.safe_dump(config, allow_unicode=True, sort_keys=False)
    (content / _CONFIG_NAME).write_text(text, encoding="utf-8")
    (content / "configuration.json").write_text(json.dumps(_configuration(), indent=2) + "\n")
    Manifest(
        name=name,
        source=f"exported from {pack.name} ({pack.model_class}, sha256 {pack.checksum})",
        revision=None,
        fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
        files=record_files(content),
        kind=ONNX_KIND,
    ).write(content)


def _configuration() -> dict[str, object]:
    return {
        "framework": "onnx",
        "task": "auto-speech-recognition",
        "kind": ONNX_KIND,
        "file_path_metas": {
            "init_param": ENCODER_NAME,
            "decoder": DECODER_NAME,
            "config": _CONFIG_NAME,
            "tokenizer_conf": {"token_list": _TOKENS_NAME},
            "frontend_conf": {"cmvn_file": _CMVN_NAME},
        },
    }


def _copy_statistics(pack: PackContents, to: Path) -> None:
    """Copies am.mvn, or writes it from the pack's statistics if it has another name."""
    if pack.cmvn is None:
        raise PackError(pack.name, "it has no feature statistics", "Choose a recognizer's pack")
    named = pack.directory / _CMVN_NAME
    if named.is_file():
        shutil.copyfile(named, to)
        return
    size = pack.cmvn.shape[1]
    rows = []
    for tag, values in zip(("AddShift", "Rescale"), pack.cmvn, strict=True):
        numbers = " ".join(repr(float(value)) for value in values)
        rows += [f"<{tag}> {size} {size}", f"<LearnRateCoef> 0 [ {numbers} ]"]
    to.write_text("\n".join(["<Nnet>", *rows, "</Nnet>", ""]), encoding="utf-8")
