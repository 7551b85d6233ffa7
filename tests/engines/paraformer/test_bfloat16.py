"""bfloat16 on CPUs: near to float32, and independent of the batch to the last bit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from serve_app.core.errors import ConfigurationError
from serve_app.core.records import (
    SAMPLES_PER_MS,
    Hotword,
    Pcm,
    RecognitionOptions,
)
from serve_app.engines.cpu_features import multiplies_bfloat16
from serve_app.engines.fsmn_vad.engine import FsmnVad
from serve_app.engines.paraformer import onednn
from serve_app.engines.paraformer.cpu import ParaformerEngine, ParaformerOptions
from serve_app.engines.paraformer.onednn import Bfloat16Linear, linear_relu, use_bfloat16
from serve_app.packs import PackContents, PackStore, resolve
from serve_app.packs.integrity import BUILTIN_DIRECTORY
from serve_app.packs.pack import open_pack
from tests.engines.paraformer.batches import neighbors_of_an_overflow, recognitions
from tests.fakes.signals import speech_like
from tests.fakes.tiny_packs import TinyParaformer, tiny_paraformer

BFLOAT16 = ParaformerOptions(dtype="bfloat16")
LENGTHS = st.one_of(st.integers(0, 500), st.integers(500, 3_000), st.integers(3_000, 60_000))
needs_bfloat16 = pytest.mark.skipif(
    not multiplies_bfloat16(), reason="this processor has neither AVX512-BF16 nor AMX"
)


@pytest.fixture(scope="module", params=["Paraformer", "SeacoParaformer"])
def pack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PackContents:
    directory = tmp_path_factory.mktemp("packs") / request.param
    return tiny_paraformer(directory, TinyParaformer(request.param, seed=1))


@pytest.fixture(scope="module")
def engine(pack: PackContents) -> ParaformerEngine:
    return ParaformerEngine(pack, BFLOAT16)


@needs_bfloat16
@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(LENGTHS, min_size=1, max_size=8), seed=st.integers(0, 1000))
def test_result_does_not_depend_on_batch_mates(
    engine: ParaformerEngine, lengths: list[int], seed: int
) -> None:
    batch = [speech_like(length, seed + at) for at, length in enumerate(lengths)]
    for found, pcm in zip(recognitions(engine, batch), batch, strict=True):
        (alone,) = recognitions(engine, [pcm])
        assert [token.text for token in found.tokens] == [token.text for token in alone.tokens]
        assert [token.start_ms for token in found.tokens] == [
            token.start_ms for token in alone.tokens
        ]
        # The scores of the vocabulary are products in float32, which round by batch.
        assert [token.confidence for token in found.tokens] == pytest.approx(
            [token.confidence for token in alone.tokens], abs=1e-4
        )


@needs_bfloat16
def test_hotwords_of_one_item_do_not_affect_another(tmp_path: Path) -> None:
    engine = ParaformerEngine(
        tiny_paraformer(tmp_path / "tiny", TinyParaformer("SeacoParaformer", seed=1)), BFLOAT16
    )
    assert engine._branch is not None
    batch = [speech_like(length, length) for length in (30_000, 48_000, 8_000)]
    (word,) = engine._branch.example()
    options = [
        RecognitionOptions(hotwords=(Hotword(word.text, weight),)) for weight in (1.0, 0.5, 1.0)
    ]
    together = recognitions(engine, batch, options)
    for found, pcm, option in zip(together, batch, options, strict=True):
        (alone,) = recognitions(engine, [pcm], [option])
        assert [token.text for token in found.tokens] == [token.text for token in alone.tokens]


@needs_bfloat16
def test_overflow_of_one_item_does_not_affect_its_batch(
    engine: ParaformerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for found, alone in neighbors_of_an_overflow(engine, monkeypatch):
        assert found == alone


def _agreement(pack: PackContents, segments: Sequence[Pcm]) -> float:
    exact, fast = (
        engine.token_ids(segments)
        for engine in (ParaformerEngine(pack), ParaformerEngine(pack, BFLOAT16))
    )
    num_same = sum(
        left == right
        for one, other in zip(exact, fast, strict=True)
        if len(one) == len(other)
        for left, right in zip(one, other, strict=True)
    )
    assert sum(map(len, exact)) > 10
    return num_same / max(sum(map(len, exact)), sum(map(len, fast)))


@needs_bfloat16
def test_tokens_on_the_demo_are_those_of_float32() -> None:
    samples = BUILTIN_DIRECTORY / "samples"
    pcm, _ = soundfile.read(samples / "demo.flac", dtype="int16")
    lines = json.loads((samples / "demo.json").read_text("utf-8"))
    segments = [
        pcm[line["start_ms"] * SAMPLES_PER_MS : line["end_ms"] * SAMPLES_PER_MS] for line in lines
    ]
    assert _agreement(open_pack(BUILTIN_DIRECTORY / "paraformer-demo"), segments) >= 0.999


@needs_bfloat16
def test_tokens_on_real_recordings_are_nearly_those_of_float32(
    vad_pack: PackContents, vad_example: Path, asr_example: Path, pack_store: PackStore
) -> None:
    demo = resolve("paraformer-demo", pack_store, fetch=False)
    segments = [pcm for path in (vad_example, asr_example) for pcm in _segments(path, vad_pack)]
    # The demo pack does not know these voices: many of its tokens are nearly ties.
    assert _agreement(demo, segments) >= 0.98


def _segments(path: Path, vad_pack: PackContents) -> list[Pcm]:
    pcm, _ = soundfile.read(path, dtype="int16")
    stream = FsmnVad(vad_pack).open()
    return [
        pcm[segment.start_ms * SAMPLES_PER_MS : segment.end_ms * SAMPLES_PER_MS]
        for segment in (*stream.push(pcm), *stream.finish())
    ]


@needs_bfloat16
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("num_in", "num_out"), [(32, 96), (560, 48), (33, 7), (516, 1548)])
def test_product_is_near_that_of_float32(num_in: int, num_out: int, bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(num_in, num_out, bias=bias)
    rows = torch.randn(50, num_in)
    with torch.inference_mode():
        fast = Bfloat16Linear(linear)
        found, expected = fast(rows), linear(rows)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, atol=0.02, rtol=0.01)
        relu = linear_relu(fast, rows)
        torch.testing.assert_close(relu.float(), expected.relu(), atol=0.02, rtol=0.01)
        assert torch.equal(fast(rows.bfloat16()), found)


@needs_bfloat16
@pytest.mark.parametrize(("num_in", "num_out"), [(64, 192), (512, 2048), (2048, 512), (516, 1548)])
def test_product_of_a_row_does_not_depend_on_the_others(num_in: int, num_out: int) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(num_in, num_out)
    rows = torch.randn(400, num_in)
    with torch.inference_mode():
        fast = Bfloat16Linear(linear)
        whole = fast(rows)
        for num_rows in (0, 1, 5, 16, 31, 100, 161, 399):
            assert torch.equal(fast(rows[:num_rows]), whole[:num_rows])
            assert torch.equal(fast(rows[num_rows:]), whole[num_rows:])


@needs_bfloat16
def test_non_finite_row_does_not_affect_the_others() -> None:
    linear = Bfloat16Linear(nn.Linear(64, 32))
    rows = torch.randn(20, 64)
    with torch.inference_mode():
        expected = linear(rows)
        rows[3] = torch.nan
        found = linear(rows)
    assert torch.isnan(found[3]).all()
    assert torch.equal(torch.cat([found[:3], found[4:]]), torch.cat([expected[:3], expected[4:]]))


def test_processor_that_would_emulate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "multiplies_bfloat16", lambda: False)
    module = nn.Sequential(nn.Linear(8, 8))
    with pytest.raises(ConfigurationError, match="AVX512-BF16"):
        use_bfloat16(module)
    assert isinstance(module[0], nn.Linear)
