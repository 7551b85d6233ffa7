from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.core.errors import ConfigurationError
from serve_app.modeltools.memory_bench import BenchPacks, choose_packs
from serve_app.modeltools.random_packs import architectures
from serve_app.modeltools.random_packs.architectures import (
    _SMALL,
    Architecture,
    _punctuator,
    _recognizer,
)
from serve_app.packs import PackStore
from serve_app.packs.registry import PackKind

DEMO = {
    "asr": "paraformer-demo",
    "small_asr": "paraformer-demo",
    "punctuation": "ct-punc-demo",
    "small_punctuation": "ct-punc-demo",
    "speakers": "campplus-zh-en",
}


def _ignore(message: str) -> None:
    del message


def test_named_packs_are_used(tmp_path: Path) -> None:
    packs = choose_packs(DEMO, PackStore(tmp_path), tmp_path / "synth", _ignore)
    assert packs.asr.name == "paraformer-demo"
    assert not packs.any_random
    assert packs.onnx is not None
    assert packs.onnx.name.startswith(f"dir:{tmp_path / 'synth'}")


def test_exported_pack_is_reused(tmp_path: Path) -> None:
    said: list[str] = []
    first = choose_packs(DEMO, PackStore(tmp_path), tmp_path / "synth", said.append)
    assert len(said) == 1
    assert choose_packs(DEMO, PackStore(tmp_path), tmp_path / "synth", said.append) == first
    assert len(said) == 1


def test_missing_pack_is_replaced_by_random_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = Architecture("ct-punc", "none", PackKind.PUNCTUATION, 21_000, _punctuator(_SMALL, 1))
    monkeypatch.setitem(architectures.ARCHITECTURES, "ct-punc", tiny)
    named = {role: name for role, name in DEMO.items() if role != "punctuation"}
    said: list[str] = []
    packs = choose_packs(named, PackStore(tmp_path), tmp_path / "synth", said.append)
    assert packs.punctuation.is_random
    assert packs.punctuation.label == "ct-punc"
    assert packs.any_random
    assert "random weights" in said[0]


def test_random_packs_are_of_the_architecture_of_the_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = Architecture("seaco", "none", PackKind.ASR, 50, _recognizer(_SMALL, 2, 1))
    monkeypatch.setitem(architectures.ARCHITECTURES, "seaco-paraformer-large", tiny)
    named = {role: name for role, name in DEMO.items() if role != "asr"}
    packs = choose_packs(named, PackStore(tmp_path), tmp_path / "synth", _ignore)
    assert packs.asr.name.endswith("seaco-paraformer-large")
    assert packs.onnx is not None
    assert packs.onnx.is_random


def test_unknown_role_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no role model; there are vad, asr"):
        choose_packs({"model": "x"}, PackStore(tmp_path), tmp_path, _ignore)


def test_defaults_are_the_published_packs() -> None:
    packs = BenchPacks()
    names = [packs.asr.name, packs.punctuation.name, packs.speakers.name]
    assert names == ["paraformer-large", "ct-punc", "campplus-zh-en"]


def test_packs_that_no_row_needs_are_not_written(tmp_path: Path) -> None:
    said: list[str] = []
    choose_packs({}, PackStore(tmp_path), tmp_path / "synth", said.append, needed=["vad"])
    assert not said
    assert not (tmp_path / "synth").exists()
