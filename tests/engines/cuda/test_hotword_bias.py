"""Hotwords of the engine for GPUs, run on the CPU, against the CPU engine."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from serve_app.core.records import NO_OPTIONS, ChunkFailure, Pcm, Recognition, RecognitionOptions
from serve_app.engines.cuda.hotword_bias import HotwordBias
from serve_app.engines.cuda.options import GpuOptions
from serve_app.engines.cuda.paraformer import GpuParaformer
from serve_app.engines.cuda.sequence_layout import SequenceLayout
from serve_app.engines.paraformer.cpu import ParaformerEngine
from serve_app.packs.pack import PackContents
from tests.fakes.hotwords import LONG_LIST, TINY_SEACO, recognition_options_of
from tests.fakes.signals import speech_like
from tests.fakes.tiny_packs import TinyParaformer, tiny_paraformer

pytestmark = pytest.mark.slow

ON_CPU = GpuOptions(device="cpu", dtype="float32", max_batch_rows=1000)
RECOGNITION_OPTIONS = [
    recognition_options_of("一丁", "丂"),
    NO_OPTIONS,
    recognition_options_of("七丄丅", weight=0.4),
    recognition_options_of(*LONG_LIST),
    recognition_options_of("unwritable"),
    recognition_options_of("丆", "unwritable"),
]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> PackContents:
    return tiny_paraformer(tmp_path_factory.mktemp("seaco") / "pack", TINY_SEACO)


@pytest.fixture(scope="module")
def reference(pack: PackContents) -> ParaformerEngine:
    return ParaformerEngine(pack)


@pytest.fixture(scope="module")
def engine(pack: PackContents) -> GpuParaformer:
    return GpuParaformer(pack, ON_CPU)


@pytest.fixture(scope="module")
def batch() -> list[Pcm]:
    lengths = (40_000, 9_000, 64_000, 23_456, 31_000, 52_000)
    return [speech_like(length, length) for length in lengths]


def _confidences(result: Recognition | ChunkFailure) -> list[float]:
    assert isinstance(result, Recognition)
    return [token.confidence for token in result.tokens]


def test_tokens_and_times_are_those_of_the_cpu_engine(
    engine: GpuParaformer, reference: ParaformerEngine, batch: list[Pcm]
) -> None:
    for shift in range(len(batch)):
        recognition_options = [*RECOGNITION_OPTIONS[shift:], *RECOGNITION_OPTIONS[:shift]]
        ids = engine.token_ids(batch, recognition_options)
        assert ids == reference.token_ids(batch, recognition_options)
        assert ids != engine.token_ids(batch)
        found, expected = (
            engine.transcribe(batch, recognition_options),
            reference.transcribe(batch, recognition_options),
        )
        for ours, theirs in zip(found, expected, strict=True):
            assert isinstance(ours, Recognition)
            assert isinstance(theirs, Recognition)
            assert [(token.start_ms, token.end_ms) for token in ours.tokens] == [
                (token.start_ms, token.end_ms) for token in theirs.tokens
            ]
            assert _confidences(ours) == pytest.approx(_confidences(theirs), abs=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_neighbors_without_hotwords_are_bit_identical(
    pack: PackContents, batch: list[Pcm], dtype: str
) -> None:
    engine = GpuParaformer(pack, dataclasses.replace(ON_CPU, dtype=dtype))
    plain = engine.transcribe(batch)
    bent = engine.transcribe(batch, RECOGNITION_OPTIONS)
    assert [bent[index] == plain[index] for index in (1, 4)] == [True, True]
    assert bent[0] != plain[0]


def test_half_precision_bias_equals_float32_for_equal_states(
    pack: PackContents, engine: GpuParaformer, batch: list[Pcm]
) -> None:
    half = GpuParaformer(pack, dataclasses.replace(ON_CPU, dtype="float16"))
    found, expected = (
        half.token_ids(batch, RECOGNITION_OPTIONS),
        engine.token_ids(batch, RECOGNITION_OPTIONS),
    )
    pairs = [pair for one, two in zip(found, expected, strict=True) for pair in zip(one, two)]  # noqa: B905 - a token may fire or not
    assert sum(one == two for one, two in pairs) > 0.9 * len(pairs)


def test_bias_of_an_utterance_does_not_depend_on_its_batch(
    engine: GpuParaformer, batch: list[Pcm]
) -> None:
    alone = [
        engine.token_ids([pcm], [options])[0]
        for pcm, options in zip(batch, RECOGNITION_OPTIONS, strict=True)
    ]
    assert engine.token_ids(batch, RECOGNITION_OPTIONS) == alone
    assert engine.token_ids(batch[::-1], RECOGNITION_OPTIONS[::-1]) == alone[::-1]


def test_groups_of_utterances_give_the_same_result_as_all_at_once(
    engine: GpuParaformer, batch: list[Pcm], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = engine.token_ids(batch, RECOGNITION_OPTIONS)
    for limit in (1, 20):
        monkeypatch.setattr("serve_app.engines.cuda.hotword_bias._GROUP_TOKENS", limit)
        assert engine.token_ids(batch, RECOGNITION_OPTIONS) == expected


def test_tokens_without_bias_keep_the_graph_output(engine: GpuParaformer, batch: list[Pcm]) -> None:
    plain = [_confidences(result) for result in engine.transcribe(batch)]
    bent = [_confidences(result) for result in engine.transcribe(batch, RECOGNITION_OPTIONS)]
    same = [x == y for one, two in zip(plain, bent, strict=True) for x, y in zip(one, two)]  # noqa: B905 - shown words differ
    assert 0.1 < sum(same) / len(same) < 1.0


def test_batch_without_hotwords_skips_the_bias(
    engine: GpuParaformer, batch: list[Pcm], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = engine.transcribe(batch)

    def apply_bias(*args: object) -> None:
        raise AssertionError("apply_bias was called without hotwords")

    monkeypatch.setattr(HotwordBias, "apply_bias", apply_bias)
    assert engine.transcribe(batch, [RecognitionOptions(keywords=("一",))] * len(batch)) == expected


def test_bias_is_applied_in_the_second_run_of_a_batch_with_too_many_tokens(
    pack: PackContents, engine: GpuParaformer, batch: list[Pcm], caplog: pytest.LogCaptureFixture
) -> None:
    narrow = GpuParaformer(pack, dataclasses.replace(ON_CPU, tokens_per_frame=0.001))
    caplog.set_level("INFO")
    assert (
        narrow.token_ids(batch * 2, RECOGNITION_OPTIONS * 2)
        == engine.token_ids(batch, RECOGNITION_OPTIONS) * 2
    )
    assert "run again" in caplog.text


def test_bias_is_applied_to_a_batch_beyond_every_bucket(
    engine: GpuParaformer, reference: ParaformerEngine
) -> None:
    batch = [speech_like(550_000, 1), speech_like(30_000, 2)]
    recognition_options = [recognition_options_of("一丁"), recognition_options_of("丂")]
    assert engine.token_ids(batch, recognition_options) == reference.token_ids(
        batch, recognition_options
    )


def test_silent_items_do_not_shift_the_hotwords_of_others(
    engine: GpuParaformer, batch: list[Pcm]
) -> None:
    silence = np.zeros(16_000, np.int16)
    spaced = [silence, batch[0], speech_like(300, 1), batch[1]]
    recognition_options = [
        recognition_options_of("七"),
        RECOGNITION_OPTIONS[0],
        recognition_options_of("七"),
        NO_OPTIONS,
    ]
    found = engine.token_ids(spaced, recognition_options)
    assert [found[1], found[3]] == engine.token_ids(batch[:2], RECOGNITION_OPTIONS[:2])
    assert found[0] == found[2] == []


def test_overflow_of_an_utterance_with_hotwords_does_not_affect_its_batch(
    engine: GpuParaformer, batch: list[Pcm], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = engine.transcribe(batch, RECOGNITION_OPTIONS)
    frontend = engine._net.frontend
    true_forward = frontend.forward

    def forward(
        samples: torch.Tensor, num_samples: torch.Tensor, sequence_layout: SequenceLayout
    ) -> torch.Tensor:
        rows = true_forward(samples, num_samples, sequence_layout)
        first = sum(map(frontend.num_rows, map(len, batch[:2])))
        rows[first : first + frontend.num_rows(len(batch[2]))] = torch.inf
        return rows

    monkeypatch.setattr(frontend, "forward", forward)
    found = engine.transcribe(batch, RECOGNITION_OPTIONS)
    assert isinstance(found[2], ChunkFailure)
    for index in (0, 1, 3, 4, 5):
        texts = [
            [token.text for token in result.tokens]
            for result in (found[index], alone[index])
            if isinstance(result, Recognition)
        ]
        assert texts[0] == texts[1]


def test_two_threads_use_their_own_hotwords(engine: GpuParaformer, batch: list[Pcm]) -> None:
    jobs = [
        ([pcm, batch[0]], [options, RECOGNITION_OPTIONS[2]])
        for pcm, options in zip(batch, RECOGNITION_OPTIONS, strict=True)
    ]
    expected = [engine.token_ids(*job) for job in jobs]
    with ThreadPoolExecutor(engine.max_in_flight) as threads:
        assert list(threads.map(lambda job: engine.token_ids(*job), jobs)) == expected


def test_pack_without_a_hotword_branch_ignores_hotwords(tmp_path: Path, batch: list[Pcm]) -> None:
    engine = GpuParaformer(
        tiny_paraformer(tmp_path / "pack", TinyParaformer("BiCifParaformer")), ON_CPU
    )
    assert engine._net.hotword_bias is None
    assert not engine.describe().hotwords
    assert engine.transcribe(batch, RECOGNITION_OPTIONS) == engine.transcribe(batch)
