from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.core.errors import (
    ConfigurationError,
    DeviceUnavailable,
    PackCorrupt,
    PackError,
    PackIncomplete,
)
from serve_app.core.ports import Recognizer
from serve_app.core.records import Recognition
from serve_app.engines.paraformer.cpu import ParaformerEngine, ParaformerOptions
from serve_app.engines.paraformer.packing import attend_padded
from serve_app.packs.pack import open_pack
from tests.engines.paraformer.batches import neighbors_of_an_overflow, recognitions
from tests.fakes.signals import speech_like
from tests.fakes.tiny_packs import TinyParaformer, tiny_paraformer, write_paraformer

CLASSES = ("Paraformer", "BiCifParaformer", "SeacoParaformer")


@pytest.fixture(scope="module", params=CLASSES)
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ParaformerEngine:
    directory = tmp_path_factory.mktemp("packs") / request.param
    return ParaformerEngine(tiny_paraformer(directory, TinyParaformer(request.param, seed=1)))


def _assert_same(found: Recognition, expected: Recognition) -> None:
    assert [(token.text, token.start_ms, token.end_ms) for token in found.tokens] == [
        (token.text, token.start_ms, token.end_ms) for token in expected.tokens
    ]
    # Matrix kernels may round differently for other batch sizes.
    assert [token.confidence for token in found.tokens] == pytest.approx(
        [token.confidence for token in expected.tokens], abs=1e-4
    )


LENGTHS = st.one_of(st.integers(0, 500), st.integers(500, 3_000), st.integers(3_000, 60_000))


@pytest.mark.slow
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(lengths=st.lists(LENGTHS, min_size=1, max_size=8), seed=st.integers(0, 1000))
def test_result_does_not_depend_on_batch_mates(
    engine: ParaformerEngine, lengths: list[int], seed: int
) -> None:
    batch = [speech_like(length, seed + at) for at, length in enumerate(lengths)]
    for found, pcm in zip(recognitions(engine, batch), batch, strict=True):
        _assert_same(found, recognitions(engine, [pcm])[0])


def test_result_does_not_depend_on_order(engine: ParaformerEngine) -> None:
    batch = [speech_like(length, length) for length in (30_000, 8_000, 90, 48_000)]
    alone = [recognitions(engine, [pcm])[0] for pcm in batch]
    assert sum(len(recognition.tokens) for recognition in alone) > 10
    for order in itertools.permutations(range(len(batch))):
        found = recognitions(engine, [batch[index] for index in order])
        for index, recognition in zip(order, found, strict=True):
            _assert_same(recognition, alone[index])


def test_times_are_ordered_and_inside_the_chunk(engine: ParaformerEngine) -> None:
    for num_samples in (16_000, 50_001, 100_000):
        (recognition,) = recognitions(engine, [speech_like(num_samples, 3)])
        edges = [edge for token in recognition.tokens for edge in (token.start_ms, token.end_ms)]
        assert edges
        edges = [0, *edges, num_samples // 16]
        assert edges == sorted(edges)


def test_confidences_are_probabilities(engine: ParaformerEngine) -> None:
    (recognition,) = recognitions(engine, [speech_like(60_000, 5)])
    assert all(0.0 < token.confidence <= 1.0 for token in recognition.tokens)


@pytest.mark.parametrize("num_samples", [0, 1, 100, 399])
def test_item_without_a_frame_is_empty_and_does_not_affect_its_batch(
    engine: ParaformerEngine, num_samples: int
) -> None:
    long = speech_like(32_000, 7)
    found = recognitions(engine, [speech_like(num_samples, 1), long, np.empty(0, np.int16)])
    assert found[0].tokens == found[2].tokens == ()
    _assert_same(found[1], recognitions(engine, [long])[0])


def test_item_of_one_frame_is_recognized(engine: ParaformerEngine) -> None:
    assert len(recognitions(engine, [speech_like(400, 2)])) == 1


def test_digital_silence_is_empty(engine: ParaformerEngine) -> None:
    (recognition,) = recognitions(engine, [np.zeros(48_000, np.int16)])
    assert recognition.tokens == ()


def test_empty_batch_has_no_results(engine: ParaformerEngine) -> None:
    assert engine.transcribe([]) == []


def test_extreme_samples_are_recognized(engine: ParaformerEngine) -> None:
    square = np.where(np.arange(32_000) % 200 < 100, 32_767, -32_768).astype(np.int16)
    assert len(recognitions(engine, [square])) == 1


def test_read_only_samples_are_accepted(engine: ParaformerEngine) -> None:
    pcm = speech_like(16_000, 1)
    expected = recognitions(engine, [pcm])[0]
    pcm.setflags(write=False)
    _assert_same(recognitions(engine, [pcm])[0], expected)


def test_token_ids_are_those_of_the_tokens(tmp_path: Path) -> None:
    pack = tiny_paraformer(tmp_path / "tiny")
    pcm = speech_like(60_000, 4)
    engine = ParaformerEngine(pack)
    (ids,) = engine.token_ids([pcm])
    shown = [pack.tokens[token_id] for token_id in ids if pack.tokens[token_id] != "<unk>"]
    assert ids
    assert shown == [token.text for token in recognitions(engine, [pcm])[0].tokens]


def test_cost_is_the_number_of_encoder_frames(engine: ParaformerEngine) -> None:
    assert [engine.cost(count) for count in (0, 399, 400, 16_000, 480_000)] == [0, 0, 1, 17, 500]


def test_engine_is_a_recognizer_and_describes_itself(tmp_path: Path) -> None:
    pack = tiny_paraformer(tmp_path / "tiny")
    engine = ParaformerEngine(pack)
    recognizer: Recognizer = engine
    assert recognizer is engine
    facts = engine.describe()
    assert (facts.pack, facts.checksum, facts.device) == ("tiny", pack.checksum, "cpu")
    assert facts.num_parameters > 0


def test_overflow_of_one_item_does_not_affect_its_batch(
    engine: ParaformerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for found, alone in neighbors_of_an_overflow(engine, monkeypatch):
        _assert_same(found, alone)


def test_padded_attention_of_other_devices_gives_the_same(
    engine: ParaformerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [speech_like(length, length) for length in (30_000, 900, 48_000, 8_000)]
    expected = recognitions(engine, batch)
    monkeypatch.setattr("serve_app.engines.paraformer.sanm.attend", attend_padded)
    for found, recognition in zip(recognitions(engine, batch), expected, strict=True):
        _assert_same(found, recognition)


@pytest.mark.parametrize("key", ["seaco_decoder.after_norm.weight", "bias_encoder.bias_hh_l0"])
def test_hotword_branch_belongs_to_seaco_alone(tmp_path: Path, key: str) -> None:
    directory = write_paraformer(tmp_path / "BiCif", TinyParaformer("BiCifParaformer"))
    state = torch.load(directory / "model.pt")
    state["state_dict"][key] = torch.zeros(4)
    torch.save(state, directory / "model.pt")
    with pytest.raises(PackCorrupt, match=key):
        ParaformerEngine(open_pack(directory))
    directory = write_paraformer(tmp_path / "SeACo", TinyParaformer("SeacoParaformer"))
    assert ParaformerEngine(open_pack(directory)).describe().hotwords
    state = torch.load(directory / "model.pt")
    del state["state_dict"][key]
    torch.save(state, directory / "model.pt")
    with pytest.raises(PackIncomplete, match=key):
        ParaformerEngine(open_pack(directory))


def _change_config(directory: Path, section: str, option: str | None, value: object) -> None:
    config = yaml.safe_load((directory / "config.yaml").read_text())
    if option is None:
        config[section] = value
    else:
        config[section][option] = value
    (directory / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize(
    ("section", "option", "value"),
    [
        ("model", None, "ContextualParaformer"),
        ("model", None, "SenseVoiceSmall"),
        ("encoder", None, "ConformerEncoder"),
        ("decoder", None, "TransformerDecoder"),
        ("predictor", None, "CifPredictor"),
        ("frontend", None, "S3prlFrontend"),
        ("encoder_conf", "input_layer", "conv2d"),
        ("frontend_conf", "fs", 8000),
    ],
)
def test_unsupported_option_is_refused_by_name(
    tmp_path: Path, section: str, option: str | None, value: object
) -> None:
    directory = write_paraformer(tmp_path / "tiny")
    _change_config(directory, section, option, value)
    with pytest.raises(PackError, match=str(value)):
        ParaformerEngine(open_pack(directory))


def test_config_of_another_size_than_the_checkpoint_is_refused(tmp_path: Path) -> None:
    directory = write_paraformer(tmp_path / "tiny")
    _change_config(directory, "encoder_conf", "linear_units", 128)
    with pytest.raises(PackCorrupt, match=r"w_1.*\(64, 32\).*\(128, 32\)"):
        ParaformerEngine(open_pack(directory))


def test_config_that_lacks_a_value_is_refused(tmp_path: Path) -> None:
    directory = write_paraformer(tmp_path / "tiny")
    _change_config(directory, "encoder_conf", "output_size", None)
    with pytest.raises(PackCorrupt, match=r"config\.yaml"):
        ParaformerEngine(open_pack(directory))


@pytest.mark.parametrize("device", ["cuda:99", "mps", "abacus"])
def test_unavailable_device_is_refused(tmp_path: Path, device: str) -> None:
    pack = tiny_paraformer(tmp_path / "tiny")
    with pytest.raises(DeviceUnavailable, match=device):
        ParaformerEngine(pack, ParaformerOptions(device=device))


def test_dtype_of_gpus_alone_is_refused(tmp_path: Path) -> None:
    pack = tiny_paraformer(tmp_path / "tiny")
    with pytest.raises(ConfigurationError, match="float32"):
        ParaformerEngine(pack, ParaformerOptions(dtype="float16"))
