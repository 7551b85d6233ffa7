"""The engine for GPUs, run on the CPU: the same functions without streams and graphs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.core.errors import ConfigurationError, DeviceUnavailable
from serve_app.core.ports import Recognizer
from serve_app.core.records import ChunkFailure, Pcm, Recognition
from serve_app.engines.cuda.options import GpuOptions
from serve_app.engines.cuda.paraformer import GpuParaformer
from serve_app.engines.cuda.sequence_layout import SequenceLayout
from serve_app.engines.paraformer.cpu import ParaformerEngine
from serve_app.packs import PackContents, PackStore, resolve
from serve_app.packs.integrity import BUILTIN_DIRECTORY
from tests.fakes.signals import speech_like
from tests.fakes.tiny_packs import TinyParaformer, tiny_paraformer

pytestmark = pytest.mark.slow

CLASSES = ("Paraformer", "BiCifParaformer", "SeacoParaformer")
ON_CPU = GpuOptions(device="cpu", dtype="float32", max_batch_rows=500)


@dataclass(frozen=True)
class Pair:
    """Both engines with one pack."""

    pack: PackContents
    reference: ParaformerEngine
    engine: GpuParaformer


@pytest.fixture(scope="module", params=CLASSES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    directory = tmp_path_factory.mktemp("packs") / request.param
    pack = tiny_paraformer(directory, TinyParaformer(request.param, seed=1))
    return Pair(pack, ParaformerEngine(pack), GpuParaformer(pack, ON_CPU))


@pytest.fixture(scope="module")
def demo() -> PackContents:
    return resolve("paraformer-demo", PackStore(), fetch=False)


@pytest.fixture(scope="module")
def demo_batch() -> list[Pcm]:
    """The bundled recording in pieces of uneven length."""
    samples, _ = soundfile.read(BUILTIN_DIRECTORY / "samples" / "demo.flac", dtype="int16")
    sequence_layout = np.cumsum([0, 30_000, 7_000, 90_000, 50_000, 1_000, 70_000])
    return [samples[start:end] for start, end in pairwise(sequence_layout) if start < len(samples)]


def _assert_same(
    found: Sequence[Recognition | ChunkFailure], expected: Sequence[Recognition | ChunkFailure]
) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert isinstance(ours, Recognition)
        assert isinstance(theirs, Recognition)
        assert [token.text for token in ours.tokens] == [token.text for token in theirs.tokens]
        # Rounding to whole ms may fall either way.
        edges = [edge for token in ours.tokens for edge in (token.start_ms, token.end_ms)]
        assert edges == pytest.approx(
            [edge for token in theirs.tokens for edge in (token.start_ms, token.end_ms)], abs=1
        )
        assert [token.confidence for token in ours.tokens] == pytest.approx(
            [token.confidence for token in theirs.tokens], abs=1e-3
        )


LENGTHS = st.one_of(st.integers(0, 500), st.integers(500, 3_000), st.integers(3_000, 60_000))


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lengths=st.lists(LENGTHS, min_size=1, max_size=8), seed=st.integers(0, 1000))
def test_tokens_and_times_are_those_of_the_cpu_engine(
    pair: Pair, lengths: list[int], seed: int
) -> None:
    batch = [speech_like(length, seed + at) for at, length in enumerate(lengths)]
    _assert_same(pair.engine.transcribe(batch), pair.reference.transcribe(batch))


def test_demo_pack_gives_the_tokens_of_the_cpu_engine(
    demo: PackContents, demo_batch: list[Pcm]
) -> None:
    engine = GpuParaformer(demo, ON_CPU)
    reference = ParaformerEngine(demo)
    expected = reference.transcribe(demo_batch)
    assert sum(len(item.tokens) for item in expected if isinstance(item, Recognition)) > 30
    _assert_same(engine.transcribe(demo_batch), expected)
    assert engine.token_ids(demo_batch) == reference.token_ids(demo_batch)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_demo_pack_gives_the_same_words_in_half_precision(
    demo: PackContents, demo_batch: list[Pcm], dtype: str
) -> None:
    engine = GpuParaformer(demo, dataclasses.replace(ON_CPU, dtype=dtype))
    assert engine.warm_up.headroom > 2.0
    assert engine.token_ids(demo_batch) == ParaformerEngine(demo).token_ids(demo_batch)


def test_batch_with_more_tokens_than_its_bucket_is_run_again(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    narrow = GpuParaformer(pair.pack, dataclasses.replace(ON_CPU, tokens_per_frame=0.001))
    batch = [speech_like(100_000, 1), speech_like(80_000, 2), speech_like(150_000, 3)]
    caplog.set_level("INFO")
    expected = pair.reference.transcribe(batch)
    _assert_same(narrow.transcribe(batch), expected)
    assert "run again" in caplog.text


@pytest.mark.parametrize("lengths", [[550_000], [4_000] * 20, [300_000, 350_000]])
def test_batch_beyond_every_bucket_is_recognized(pair: Pair, lengths: list[int]) -> None:
    batch = [speech_like(length, at) for at, length in enumerate(lengths)]
    _assert_same(pair.engine.transcribe(batch), pair.reference.transcribe(batch))


def test_two_threads_get_their_own_results(pair: Pair) -> None:
    batches = [[speech_like(20_000 + 500 * at, at), speech_like(9_000, at)] for at in range(4)]
    expected = [pair.engine.transcribe(batch) for batch in batches]
    with ThreadPoolExecutor(pair.engine.max_in_flight) as threads:
        found = list(threads.map(pair.engine.transcribe, batches))
    for results, alone in zip(found, expected, strict=True):
        _assert_same(results, alone)


@pytest.mark.parametrize("num_samples", [0, 1, 399])
def test_item_without_a_frame_is_empty_and_does_not_affect_its_batch(
    pair: Pair, num_samples: int
) -> None:
    long = speech_like(32_000, 7)
    batch = [speech_like(num_samples, 1), long, np.zeros(16_000, np.int16)]
    found = pair.engine.transcribe(batch)
    assert found[0] == found[2] == Recognition(())
    _assert_same(found[1:2], pair.reference.transcribe([long]))


def test_empty_batch_has_no_results(pair: Pair) -> None:
    assert pair.engine.transcribe([]) == []


def test_overflow_of_one_item_does_not_affect_its_batch(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [speech_like(length, length) for length in (30_000, 20_000, 10_000)]
    alone = [pair.engine.transcribe([pcm])[0] for pcm in batch]
    frontend = pair.engine._net.frontend
    true_forward = frontend.forward

    def forward(
        samples: torch.Tensor, num_samples: torch.Tensor, sequence_layout: SequenceLayout
    ) -> torch.Tensor:
        rows = true_forward(samples, num_samples, sequence_layout)
        first = frontend.num_rows(len(batch[0]))
        rows[first : first + frontend.num_rows(len(batch[1]))] = torch.inf
        return rows

    monkeypatch.setattr(frontend, "forward", forward)
    found = pair.engine.transcribe(batch)
    assert isinstance(found[1], ChunkFailure)
    assert found[1].code == "non_finite_scores"
    _assert_same([found[0], found[2]], [alone[0], alone[2]])


def test_cost_and_description_are_those_of_the_cpu_engine(pair: Pair) -> None:
    port: Recognizer = pair.engine
    for num_samples in (0, 399, 400, 16_000, 480_000):
        assert port.cost(num_samples) == pair.reference.cost(num_samples)
    assert pair.engine.describe() == pair.reference.describe()


def test_model_that_overflows_is_refused_when_it_is_loaded(
    demo: PackContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.engines.cuda.paraformer._WARM_UP_AMPLITUDES", (1_000.0,))
    monkeypatch.setattr(
        "serve_app.engines.cuda.layers.normed",
        lambda rows, norm: rows * 1e4 if rows.shape[1] == len(norm.weight) else rows,
    )
    with pytest.raises(ConfigurationError, match=r"encoder\.encoders0\.0.*bfloat16 or float32"):
        GpuParaformer(demo, dataclasses.replace(ON_CPU, dtype="float16"))


@pytest.mark.parametrize("dtype", ["int8", "float64"])
def test_unsupported_dtype_is_refused(demo: PackContents, dtype: str) -> None:
    with pytest.raises(ConfigurationError, match=dtype):
        GpuParaformer(demo, dataclasses.replace(ON_CPU, dtype=dtype))


def test_unavailable_device_is_refused(demo: PackContents) -> None:
    with pytest.raises(DeviceUnavailable, match="cuda:99"):
        GpuParaformer(demo, GpuOptions(device="cuda:99"))
