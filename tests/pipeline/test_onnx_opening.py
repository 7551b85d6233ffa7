"""`recognizer.engine: onnx` of the settings."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from serve_app.core.errors import ConfigurationError, PackError
from serve_app.engines.paraformer_onnx import ParaformerOnnxEngine
from serve_app.packs import PackContents
from serve_app.packs.export import export
from serve_app.pipeline.engines import open_recognizer
from serve_app.settings import Settings
from tests.fakes.tiny_packs import tiny_paraformer


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
    monkeypatch.delitem(sys.modules, "serve_app.engines.paraformer_onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigurationError, match=r"paraserve\[onnx\]"):
        open_recognizer(settings_with(pack), pack)
