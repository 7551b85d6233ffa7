"""Packs with random weights, on the smallest of each kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from serve_app.cli.models import models_app
from serve_app.core.errors import PackFetchFailed, PackNotFound
from serve_app.core.records import Recognition
from serve_app.engines.ct_transformer import CtTransformerEngine
from serve_app.engines.paraformer.cpu import ParaformerEngine
from serve_app.modeltools.random_packs import ARCHITECTURES, synthesize
from serve_app.modeltools.random_packs.weights import punctuation_tokens, speech_tokens
from serve_app.packs.pack import PackContents
from tests.fakes.signals import speech_like

pytestmark = pytest.mark.slow

RECOGNIZER = "paraformer-small"


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> PackContents:
    return synthesize(RECOGNIZER, tmp_path_factory.mktemp("synth") / "pack")


@pytest.fixture(scope="module")
def engine(recognizer: PackContents) -> ParaformerEngine:
    return ParaformerEngine(recognizer)


def test_same_seed_gives_same_file(recognizer: PackContents, tmp_path: Path) -> None:
    again = synthesize(RECOGNIZER, tmp_path / "again", seed=0)
    assert again.checksum == recognizer.checksum


def test_other_seed_gives_other_weights(recognizer: PackContents, tmp_path: Path) -> None:
    other = synthesize(RECOGNIZER, tmp_path / "other", seed=1)
    assert other.checksum != recognizer.checksum


def test_pack_says_that_its_weights_are_random(recognizer: PackContents) -> None:
    configuration = json.loads((recognizer.directory / "configuration.json").read_text())
    assert "RANDOM WEIGHTS" in configuration["note"]
    assert configuration["random_weights"]["seed"] == 0
    assert "RANDOM WEIGHTS" in (recognizer.directory / "config.yaml").read_text()


def test_recognizer_has_the_published_number_of_parameters(recognizer: PackContents) -> None:
    # 68 million, and the table that training alone uses.
    state = torch.load(recognizer.weights, mmap=True, weights_only=True)
    table = state.pop("decoder.embed.0.weight")
    assert table.shape == (8358, 320)
    assert sum(tensor.numel() for tensor in state.values()) == pytest.approx(68e6, rel=0.01)


def test_recognizer_gives_a_realistic_token_rate(engine: ParaformerEngine) -> None:
    for seed, seconds in ((1, 4), (2, 9), (3, 15)):
        heard = engine.transcribe([speech_like(seconds * 16_000, seed)])[0]
        assert isinstance(heard, Recognition)
        assert 3.0 <= len(heard.tokens) / seconds <= 6.0


def test_recognizer_gives_varied_tokens(engine: ParaformerEngine) -> None:
    tokens = engine.token_ids([speech_like(160_000, 4)])[0]
    assert len(set(tokens)) >= len(tokens) / 3


def test_punctuator_gives_a_realistic_mark_rate(tmp_path: Path) -> None:
    engine = CtTransformerEngine(synthesize("ct-punc-small", tmp_path / "pack"))
    generator = np.random.default_rng(0)
    characters = speech_tokens(4000)[3:-1]
    marks = engine.label([[str(c) for c in generator.choice(characters, 60)] for _ in range(10)])
    num_marks = sum(bool(mark) for text in marks for mark in text)
    assert 600 / 18 <= num_marks <= 600 / 4


def test_punctuator_vocabulary_covers_the_recognizer_tokens() -> None:
    spoken = set(speech_tokens(8404)[3:])
    assert spoken <= set(punctuation_tokens(ARCHITECTURES["ct-punc-small"].vocabulary_size))


@pytest.mark.parametrize("size", [30_000, 471_067])
def test_vocabulary_has_the_size_and_no_word_twice(size: int) -> None:
    assert len(set(punctuation_tokens(size))) == size


def test_unknown_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackNotFound, match="paraformer-small"):
        synthesize("whisper", tmp_path / "pack")


def test_nonempty_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    with pytest.raises(PackFetchFailed, match="taken"):
        synthesize(RECOGNIZER, tmp_path)
    assert (tmp_path / "precious").read_text() == "data"


def test_command_reports_an_error_in_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(models_app, ["synth", "whisper", "--to", str(tmp_path / "pack")])
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
