from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.core.records import ALL_HEEDED, Hotword, HotwordCheck, RecognitionOptions
from serve_app.inference.recognizer_models import HotwordValidator
from serve_app.settings import Settings
from tests.fakes.tiny_packs import TinyParaformer, tiny_paraformer


def _validator(directory: Path, model_class: str, device: str = "cpu") -> HotwordValidator:
    pack = tiny_paraformer(directory / "pack", TinyParaformer(model_class))
    section = {"pack": "pack", "device": device, "deployment": {"num_gpus": float(device != "cpu")}}
    settings = Settings.model_validate({"profile": "demo", "recognizer": section})
    return HotwordValidator(settings, {"pack": pack})


def _recognition_options(*words: str) -> RecognitionOptions:
    return RecognitionOptions(hotwords=tuple(Hotword(word) for word in words))


def test_words_outside_the_vocabulary_are_named(tmp_path: Path) -> None:
    validator = _validator(tmp_path, "SeacoParaformer")
    assert validator.validate(RecognitionOptions()) == ALL_HEEDED
    assert validator.validate(_recognition_options("一丁", "丂")) == ALL_HEEDED
    assert validator.validate(_recognition_options("龘", "一", "一龘")) == HotwordCheck(
        None, ("龘", "一龘")
    )


@pytest.mark.parametrize("model_class", ["Paraformer", "BiCifParaformer"])
def test_model_without_a_bias_encoder_refuses_hotwords(tmp_path: Path, model_class: str) -> None:
    assert "no bias encoder" in str(
        _validator(tmp_path, model_class).validate(_recognition_options("一")).no_use
    )
    assert _validator(tmp_path / "again", model_class).validate(RecognitionOptions()) == ALL_HEEDED


def test_result_on_a_gpu_is_that_on_a_cpu(tmp_path: Path) -> None:
    validator = _validator(tmp_path, "SeacoParaformer", "cuda")
    assert validator.validate(_recognition_options("一")) == ALL_HEEDED
    assert validator.validate(_recognition_options("龘")).unwritable == ("龘",)
    refused = _validator(tmp_path / "again", "BiCifParaformer", "cuda").validate(
        _recognition_options("一")
    )
    assert "no bias encoder" in str(refused.no_use)


@pytest.mark.parametrize("engine", ["onnx", "whispercpp"])
def test_engine_without_hotword_support_refuses_them(tmp_path: Path, engine: str) -> None:
    pack = tiny_paraformer(tmp_path / "pack", TinyParaformer("SeacoParaformer"))
    settings = Settings.model_validate(
        {"profile": "demo", "recognizer": {"pack": "pack", "engine": engine}}
    )
    check = HotwordValidator(settings, {"pack": pack}).validate(_recognition_options("一"))
    assert f"engine {engine} takes none" in str(check.no_use)
