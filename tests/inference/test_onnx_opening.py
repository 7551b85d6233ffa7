"""`recognizer.engine: onnx` of the settings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.core.errors import ConfigurationError, PackError
from serve_app.engines.paraformer.onnx import ParaformerOnnxEngine
from serve_app.inference.engines import open_recognizer
from serve_app.modeltools.onnx_export import export
from serve_app.packs import PackContents
from serve_app.settings import Settings
from tests.fakes.tiny_packs import tiny_paraformer

TRANSCRIBES = """
import asyncio, json, logging, sys
from functools import partial

import numpy as np

# All that a replica of the recognizer imports.
from serve_app.deployments import recognizer
from serve_app.core.records import Chunk, Recognition
from serve_app.core.records import RecognitionOptions, Hotword
from serve_app.core.records import RequestContext
from serve_app.inference.batched import thread_niceness_of, recognizer_limits
from serve_app.inference.recognizer_models import RecognizerModels
from serve_app.settings import Settings

settings = Settings.model_validate_json(sys.argv[1])
priority = partial(thread_niceness_of, settings, settings.recognizer.device)


async def main():
    limits = recognizer_limits(settings)
    opened = RecognizerModels(settings, limits, logging.getLogger(), priority)
    memory = recognizer.gpu_bytes_of(opened.readiness)()
    pcm = np.random.default_rng(0).integers(-9000, 9000, 48_000).astype(np.int16)
    (heard,) = await opened.cache.transcribe([Chunk(RequestContext("r"), 0, 0, pcm)])
    options = RecognitionOptions(hotwords=(Hotword("好"),))
    problem = opened.hotword_validator.validate(options).no_use
    await opened.cache.close()
    return isinstance(heard, Recognition), memory, problem


print(json.dumps([*asyncio.run(main()), "torch" in sys.modules]))
"""


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> PackContents:
    folder = tmp_path_factory.mktemp("packs")
    return export(tiny_paraformer(folder / "source"), folder / "onnx")


def settings_with(pack: PackContents, **recognizer: object) -> Settings:
    section = {"engine": "onnx", "pack": f"dir:{pack.directory}", **recognizer}
    return Settings.model_validate({"profile": "asr-only", "recognizer": section})


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_exported_pack_is_opened_on_onnxruntime(pack: PackContents, dtype: str) -> None:
    engine = open_recognizer(settings_with(pack, dtype=dtype), pack)
    assert isinstance(engine, ParaformerOnnxEngine)


def test_dtype_that_is_not_the_packs_is_refused(pack: PackContents, tmp_path: Path) -> None:
    exact = export(tiny_paraformer(tmp_path / "source"), tmp_path / "onnx", "float32")
    with pytest.raises(ConfigurationError, match="float32"):
        open_recognizer(settings_with(exact, dtype="int8"), exact)


def test_gpu_is_refused(pack: PackContents) -> None:
    with pytest.raises(ConfigurationError, match="cpu"):
        open_recognizer(settings_with(pack, device="cuda", deployment={"num_gpus": 1.0}), pack)


def test_pack_for_pytorch_is_refused_with_a_remedy(tmp_path: Path) -> None:
    source = tiny_paraformer(tmp_path / "source")
    with pytest.raises(PackError, match="models export"):
        open_recognizer(settings_with(source), source)


def test_missing_onnxruntime_names_the_extra(
    pack: PackContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "serve_app.engines.paraformer.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigurationError, match=r"paraserve\[onnx\]"):
        open_recognizer(settings_with(pack), pack)


def test_onnx_replica_does_not_import_pytorch(pack: PackContents) -> None:
    settings = settings_with(pack).model_dump_json()
    command = [sys.executable, "-c", TRANSCRIBES, settings]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told == [True, None, "recognizer.engine onnx takes none", False]
