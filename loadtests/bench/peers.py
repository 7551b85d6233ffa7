"""Recognizers that hear the same segments: ours, FunASR's AutoModel, funasr-onnx."""

from __future__ import annotations

import functools
import importlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from serve_app.core.errors import ConfigurationError
from serve_app.core.records import Pcm, Recognition
from serve_app.engines.paraformer.cpu import ParaformerEngine, ParaformerOptions
from serve_app.packs import PackContents

PACKED_FRAMES = 1000


class Peer(Protocol):
    """A recognizer; `hear` returns the text of each segment without spaces."""

    def hear(self, segments: list[Pcm]) -> list[str]: ...


class PeerMissing(Exception):
    """The peer cannot run here; the message says why."""


class Packed:
    """Paraserve's engine: segments end to end, up to PACKED_FRAMES in a batch."""

    def __init__(self, pack: PackContents, dtype: str = "float32") -> None:
        try:
            self._engine = ParaformerEngine(pack, ParaformerOptions(dtype=dtype))
        except ConfigurationError as error:
            raise PeerMissing(str(error)) from error

    def hear(self, segments: list[Pcm]) -> list[str]:
        return [
            "".join(token.text for token in heard.tokens) if isinstance(heard, Recognition) else "!"
            for batch in packed(segments, self._engine.cost, PACKED_FRAMES)
            for heard in self._engine.transcribe(batch)
        ]


class Auto:
    """FunASR's AutoModel; with a batch size above 1, segments of like length together."""

    def __init__(self, model: Any, batch_size: int = 1) -> None:
        self._model = model
        self._batch_size = batch_size

    def hear(self, segments: list[Pcm]) -> list[str]:
        texts = [""] * len(segments)
        order = sorted(range(len(segments)), key=lambda index: len(segments[index]))
        if self._batch_size == 1:
            order = list(range(len(segments)))
        for first in range(0, len(order), self._batch_size):
            indices = order[first : first + self._batch_size]
            inputs = [as_float(segments[index]) for index in indices]
            answers = self._model.generate(inputs, batch_size=len(inputs))
            if len(answers) != len(indices):
                raise PeerMissing("AutoModel gave fewer results than it was given segments")
            for index, answer in zip(indices, answers, strict=True):
                texts[index] = answer["text"].replace(" ", "")
        return texts


class Onnx:
    """funasr-onnx, one segment a call: batches are padded there, too."""

    def __init__(self, directory: Path, quantize: bool) -> None:
        # It has no stubs, and is not installed everywhere.
        self._model: Any = importlib.import_module("funasr_onnx").Paraformer(
            str(directory), batch_size=1, quantize=quantize, intra_op_num_threads=1
        )

    def hear(self, segments: list[Pcm]) -> list[str]:
        texts = []
        for pcm in segments:
            answers = self._model(as_float(pcm))
            texts.append(str(answers[0]["preds"][0]).replace(" ", "") if answers else "")
        return texts


def as_float(pcm: Pcm) -> npt.NDArray[np.float32]:
    """What FunASR takes: float32 between -1 and 1."""
    return pcm.astype(np.float32) / np.float32(32_768)


def auto_model(pack: PackContents, device: str = "cpu", ncpu: int = 1, **models: object) -> Any:
    """Returns FunASR's AutoModel on a device, without progress bars.

    Raises:
        PeerMissing: it is not installed, or does not load.
    """
    try:
        from funasr import AutoModel
    except ImportError as error:
        raise PeerMissing(f"FunASR is not installed: {error}") from error
    try:
        return AutoModel(
            model=str(pack.directory),
            device=device,
            ncpu=ncpu,
            disable_update=True,
            disable_pbar=True,
            log_level="ERROR",
            **models,
        )
    except Exception as error:
        raise PeerMissing(f"AutoModel did not load: {error!r}") from error


def packed(segments: Iterable[Pcm], cost: Callable[[int], int], budget: int) -> Iterator[list[Pcm]]:
    """Yields segments in their order in batches that cost at most the budget."""
    batch: list[Pcm] = []
    spent = 0
    for pcm in segments:
        frames = cost(len(pcm))
        if batch and spent + frames > budget:
            yield batch
            batch, spent = [], 0
        batch.append(pcm)
        spent += frames
    if batch:
        yield batch


def exported(pack: PackContents, model: Any, scratch: Path) -> Path:
    """Exports the pack as funasr-onnx wants it, once; returns the directory.

    Raises:
        PeerMissing: with the reason.
    """
    if pack.model_class != "Paraformer":
        raise PeerMissing(f"funasr-onnx runs class Paraformer here, not {pack.model_class}")
    try:
        for name in ("onnx", "funasr_onnx"):
            importlib.import_module(name)
    except ImportError as error:
        remedy = "pip install paraserve[bench]; pip install --no-deps funasr-onnx==0.4.3"
        raise PeerMissing(f"{error} ({remedy})") from error
    directory = scratch / f"onnx-{pack.checksum[:12]}"
    if (directory / "model_quant.onnx").is_file():
        return directory
    partial = directory.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in ("config.yaml", "am.mvn", "tokens.json"):
        shutil.copyfile(pack.directory / name, partial / name)
    _export(model, partial)
    partial.rename(directory)
    return directory


def _export(model: Any, directory: Path) -> None:
    original = torch.onnx.export
    # FunASR 1.4.16 is written for the exporter that PyTorch had before 2.9.
    torch.onnx.export = functools.partial(original, dynamo=False)
    try:
        model.export(type="onnx", quantize=True, output_dir=str(directory))
    except Exception as error:
        raise PeerMissing(f"the export to ONNX failed: {error!r}") from error
    finally:
        torch.onnx.export = original
