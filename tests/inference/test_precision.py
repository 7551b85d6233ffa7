from __future__ import annotations

import pytest

from serve_app.inference import precision
from serve_app.inference.fingerprint import output_settings_of
from serve_app.inference.loading import load_punctuator, load_recognizer, load_vad
from serve_app.inference.precision import dtype_of
from serve_app.inference.recognizer_models import model_memory_bytes
from serve_app.settings import Settings


def _settings(**recognizer: object) -> Settings:
    punctuator = {"dtype": "auto"}
    return Settings.model_validate(
        {"recognizer": {"dtype": "auto", **recognizer}, "punctuator": punctuator}
    )


@pytest.mark.parametrize(("is_native", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_bfloat16_only_where_the_processor_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, is_native: bool, expected: str
) -> None:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: is_native)
    settings = _settings()
    assert dtype_of(settings.recognizer) == dtype_of(settings.punctuator) == expected
    assert ("recognizer.dtype", f'"{expected}"') in output_settings_of(settings, "asr")
    assert ("punctuator.dtype", f'"{expected}"') in output_settings_of(settings, "punctuation")


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_dtype_that_is_named_stays(dtype: str) -> None:
    assert dtype_of(_settings(dtype=dtype).recognizer) == dtype


def test_auto_on_a_gpu_is_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: False)
    on_gpu = _settings(device="cuda", deployment={"num_gpus": 1.0})
    assert dtype_of(on_gpu.recognizer) == "bfloat16"


@pytest.mark.parametrize("is_native", [True, False])
def test_readiness_and_memory_follow_the_choice(
    monkeypatch: pytest.MonkeyPatch, is_native: bool
) -> None:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: is_native)
    settings = _settings()
    if is_native and not _can_run():
        pytest.skip("this processor has neither AVX512-BF16 nor AMX")
    chosen = "bfloat16" if is_native else "float32"
    recognizer = load_recognizer(settings)
    assert recognizer.readiness.dtype == load_punctuator(settings).readiness.dtype == chosen
    assert load_vad(settings).readiness.dtype == "float32"
    taken = model_memory_bytes(settings.recognizer, recognizer.pack)
    assert taken == model_memory_bytes(_settings(dtype=chosen).recognizer, recognizer.pack)


def _can_run() -> bool:
    from serve_app.engines.cpu_features import multiplies_bfloat16

    return multiplies_bfloat16()


@pytest.mark.parametrize(
    ("device", "is_native", "expected"),
    [("cpu", True, "bfloat16"), ("cpu", False, "float32"), ("cuda", True, "float32")],
)
def test_auto_of_the_speaker_model_is_what_its_engine_supports(
    monkeypatch: pytest.MonkeyPatch, device: str, is_native: bool, expected: str
) -> None:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: is_native)
    num_gpus = 0.0 if device == "cpu" else 0.1
    embedder = {"dtype": "auto", "device": device, "deployment": {"num_gpus": num_gpus}}
    assert dtype_of(Settings.model_validate({"speaker_embedder": embedder}).speaker_embedder) == (
        expected
    )
