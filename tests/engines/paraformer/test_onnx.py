from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.core.errors import ConfigurationError, PackCorrupt, PackError
from serve_app.core.records import ChunkFailure
from serve_app.engines.paraformer.cpu import ParaformerEngine, ParaformerOptions
from serve_app.engines.paraformer.onnx import OnnxOptions, ParaformerOnnxEngine
from serve_app.engines.paraformer.onnx_pack import DECODER_NAME
from serve_app.modeltools.onnx_export import export
from serve_app.modeltools.onnx_export.check import compare, demo_clips
from serve_app.packs import PackContents, open_pack
from serve_app.packs.integrity import BUILTIN_DIRECTORY
from tests.engines.paraformer.batches import recognitions
from tests.fakes.signals import speech_like
from tests.fakes.tiny_packs import TinyParaformer, tiny_paraformer

LENGTHS = st.one_of(st.integers(0, 500), st.integers(500, 3_000), st.integers(3_000, 60_000))
TINY = {
    "vanilla": TinyParaformer("Paraformer", seed=1),
    "bicif": TinyParaformer("BiCifParaformer", seed=2, upsample_type="cnn", use_cif1_cnn=True),
    "seaco": TinyParaformer("SeacoParaformer", seed=3),
    "shifted": TinyParaformer(
        "Paraformer", seed=4, kernel_shift=2, num_decoder_blocks=3, num_attention_blocks=2
    ),
}


@dataclass(frozen=True)
class Engines:
    """One pack in PyTorch, and exported."""

    source: PackContents
    reference: ParaformerEngine
    exact: ParaformerOnnxEngine
    eight_bits: ParaformerOnnxEngine


def engines_of(pack: PackContents, folder: Path) -> Engines:
    return Engines(
        pack,
        ParaformerEngine(pack),
        ParaformerOnnxEngine(export(pack, folder / "float32", "float32")),
        ParaformerOnnxEngine(export(pack, folder / "int8", "int8")),
    )


@pytest.fixture(scope="module", params=list(TINY))
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    folder = tmp_path_factory.mktemp(request.param)
    return engines_of(tiny_paraformer(folder / "source", TINY[request.param]), folder)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    pack = open_pack(BUILTIN_DIRECTORY / "paraformer-demo")
    return engines_of(pack, tmp_path_factory.mktemp("demo"))


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(LENGTHS, min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_float32_gives_the_result_of_the_pytorch_engine(
    tiny: Engines, lengths: list[int], seed: int
) -> None:
    batch = [speech_like(length, seed + at) for at, length in enumerate(lengths)]
    expected = recognitions(tiny.reference, batch)
    for one, other in zip(expected, recognitions(tiny.exact, batch), strict=True):
        assert [token.text for token in other.tokens] == [token.text for token in one.tokens]
        for token, twin in zip(one.tokens, other.tokens, strict=True):
            assert twin.start_ms == pytest.approx(token.start_ms, abs=1)
            assert twin.end_ms == pytest.approx(token.end_ms, abs=1)
            assert twin.confidence == pytest.approx(token.confidence, abs=1e-3)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(LENGTHS, min_size=1, max_size=6), seed=st.integers(0, 1000))
def test_result_does_not_depend_on_batch_mates_to_the_last_bit(
    tiny: Engines, lengths: list[int], seed: int
) -> None:
    batch = [speech_like(length, seed + at) for at, length in enumerate(lengths)]
    for engine in (tiny.exact, tiny.eight_bits):
        for found, pcm in zip(recognitions(engine, batch), batch, strict=True):
            assert found == recognitions(engine, [pcm])[0]


def test_float32_on_the_demo_is_equal_with_all_its_times(demo: Engines) -> None:
    check = compare(demo.reference, demo.exact, demo_clips())
    assert check.is_equal
    assert check.most_shifted_ms <= 1


def test_int8_on_the_demo_changes_at_most_one_character_in_a_hundred(demo: Engines) -> None:
    assert compare(demo.reference, demo.eight_bits, demo_clips()).error_rate <= 0.01


def test_int8_of_both_engines_scales_row_by_row_alike(demo: Engines) -> None:
    eight_bits = ParaformerEngine(demo.source, ParaformerOptions(dtype="int8"))
    assert compare(eight_bits, demo.eight_bits, demo_clips()).error_rate <= 0.01


def test_token_ids_are_those_of_the_pytorch_engine(demo: Engines) -> None:
    clips = demo_clips()[:3]
    assert demo.exact.token_ids(clips) == demo.reference.token_ids(clips)


@pytest.mark.parametrize("num_samples", [0, 1, 399, 400, 1_000])
def test_short_item_is_answered(tiny: Engines, num_samples: int) -> None:
    assert len(recognitions(tiny.eight_bits, [speech_like(num_samples, 1)])) == 1


def test_silence_is_empty(tiny: Engines) -> None:
    assert recognitions(tiny.exact, [np.zeros(48_000, np.int16)])[0].tokens == ()


@pytest.mark.parametrize("num_samples", [0, 399, 400, 559, 560, 16_000, 160_001])
def test_cost_is_that_of_the_pytorch_engine(demo: Engines, num_samples: int) -> None:
    assert demo.exact.cost(num_samples) == demo.reference.cost(num_samples)


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_overflow_is_a_failure_of_its_item(tiny: Engines, dtype: str, value: float) -> None:
    engine = tiny.exact if dtype == "float32" else tiny.eight_bits
    statistics = engine._cmvn
    engine._cmvn = np.full_like(statistics, value)
    try:
        (found,) = engine.transcribe([speech_like(20_000, 1)])
    finally:
        engine._cmvn = statistics
    assert isinstance(found, ChunkFailure)


def test_facts_name_the_source(tiny: Engines) -> None:
    facts = tiny.eight_bits.describe()
    assert facts.source_checksum == tiny.source.checksum
    assert facts.model_class == tiny.source.model_class
    assert facts.dtype == "int8"
    assert facts.num_parameters == tiny.reference.describe().num_parameters


def test_pytorch_pack_is_refused_with_a_remedy(tiny: Engines) -> None:
    with pytest.raises(PackError, match="models export"):
        ParaformerOnnxEngine(tiny.source)


def test_onnx_pack_is_refused_by_the_pytorch_engine(tiny: Engines) -> None:
    exported = open_pack(tiny.source.directory.parent / "int8")
    with pytest.raises(PackError, match="ParaformerOnnx"):
        ParaformerEngine(exported)


def test_damaged_decoder_is_refused(tmp_path: Path) -> None:
    pack = export(tiny_paraformer(tmp_path / "source"), tmp_path / "onnx")
    with (pack.directory / DECODER_NAME).open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(PackCorrupt, match="sha256"):
        ParaformerOnnxEngine(pack)


def test_file_that_is_not_a_graph_is_refused(tmp_path: Path) -> None:
    pack = export(tiny_paraformer(tmp_path / "source"), tmp_path / "onnx")
    pack.weights.write_bytes(b"no graph")
    with pytest.raises(PackCorrupt, match=r"encoder\.onnx"):
        ParaformerOnnxEngine(pack)


def test_no_threads_are_refused(demo: Engines) -> None:
    pack = open_pack(demo.source.directory)
    with pytest.raises(ConfigurationError, match="num_threads"):
        ParaformerOnnxEngine(pack, OnnxOptions(num_threads=0))


def test_engine_needs_no_pytorch(tmp_path: Path) -> None:
    pack = export(tiny_paraformer(tmp_path / "source"), tmp_path / "onnx")
    program = (
        "import sys, json, pathlib, numpy\n"
        "from serve_app.packs import open_pack\n"
        "from serve_app.engines.paraformer.onnx import ParaformerOnnxEngine\n"
        "engine = ParaformerOnnxEngine(open_pack(pathlib.Path(sys.argv[1])))\n"
        "engine.transcribe([numpy.ones(16000, numpy.int16)])\n"
        "print(json.dumps('torch' in sys.modules))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(pack.directory)], capture_output=True, check=True
    )
    assert json.loads(found.stdout) is False


def test_threads_of_pytorch_are_left_alone(demo: Engines) -> None:
    before = torch.get_num_threads()
    ParaformerOnnxEngine(
        open_pack(Path(demo.exact._pack.directory)), OnnxOptions(num_threads=before + 1)
    )
    assert torch.get_num_threads() == before
