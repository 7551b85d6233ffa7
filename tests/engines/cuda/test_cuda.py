"""The real path: kernels, streams, graphs and memory of a CUDA device."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from serve_app.core.records import NO_OPTIONS, Pcm, Recognition
from serve_app.engines.ct_transformer import CtTransformerEngine
from serve_app.engines.cuda.attention import attend_efficient, attend_flash, probe
from serve_app.engines.cuda.ct_transformer import GpuCtTransformer
from serve_app.engines.cuda.fsmn_memory import probe as probe_memory
from serve_app.engines.cuda.options import GpuOptions
from serve_app.engines.cuda.paraformer import GpuParaformer
from serve_app.engines.paraformer.cpu import ParaformerEngine
from serve_app.packs import PackStore, resolve
from tests.fakes.hotwords import LONG_LIST, TINY_SEACO, recognition_options_of
from tests.fakes.signals import speech_like
from tests.fakes.tiny_packs import TinyParaformer, tiny_paraformer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="needs a CUDA device; PyTorch finds none here"
    ),
]

CUDA = torch.device("cuda", 0)
OPTIONS = GpuOptions(device="cuda", dtype="float32", max_batch_rows=2000)


def _batches() -> list[list[Pcm]]:
    lengths = [[30_000, 900, 48_000], [8_000] * 9, [160_000, 90, 16_000, 70_000], [200_000] * 2]
    return [[speech_like(length, length + at) for at, length in enumerate(row)] for row in lengths]


def _words(results: list[object]) -> list[list[str]]:
    assert all(isinstance(result, Recognition) for result in results)
    return [[token.text for token in result.tokens] for result in results]  # type: ignore[attr-defined]


@pytest.mark.parametrize("head_size", [128, 80, 43, 8])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_flash_attention_is_the_reference(dtype: torch.dtype, head_size: int) -> None:
    assert probe(attend_flash, CUDA, dtype, 4, head_size) < 5e-2


@pytest.mark.parametrize("head_size", [128, 80, 43, 8])
def test_efficient_attention_is_the_reference_in_float32(head_size: int) -> None:
    assert probe(attend_efficient, CUDA, torch.float32, 4, head_size) < 2e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_fused_memory_equals_the_reference(dtype: torch.dtype) -> None:
    from serve_app.engines.cuda.fsmn_memory_kernel import fsmn_memory_fused

    assert probe_memory(fsmn_memory_fused, CUDA, dtype) < 1e-1


@pytest.mark.parametrize("model_class", ["Paraformer", "BiCifParaformer", "SeacoParaformer"])
@pytest.mark.parametrize("max_graphs", [0, 24])
def test_words_are_those_of_the_cpu_engine(
    tmp_path: Path, model_class: str, max_graphs: int
) -> None:
    pack = tiny_paraformer(tmp_path / "tiny", TinyParaformer(model_class, seed=1))
    engine = GpuParaformer(pack, dataclasses.replace(OPTIONS, max_graphs=max_graphs))
    reference = ParaformerEngine(pack)
    for batch in _batches():
        assert _words([*engine.transcribe(batch)]) == _words([*reference.transcribe(batch)])
    assert (engine.warm_up.num_graphs > 0) == (max_graphs > 0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_demo_pack_runs_as_graphs_with_fused_kernels(dtype: str) -> None:
    pack = resolve("paraformer-demo", PackStore(), fetch=False)
    engine = GpuParaformer(pack, dataclasses.replace(OPTIONS, dtype=dtype))
    assert engine.warm_up.num_graphs == engine.warm_up.num_buckets
    assert engine.warm_up.attention in ("attend_flash", "attend_efficient")
    assert engine.warm_up.memory == "fsmn_memory_fused"


@pytest.mark.parametrize("max_graphs", [0, 24])
def test_hotwords_have_the_effect_that_they_have_on_the_cpu(
    tmp_path: Path, max_graphs: int
) -> None:
    pack = tiny_paraformer(tmp_path / "tiny", TINY_SEACO)
    engine = GpuParaformer(pack, dataclasses.replace(OPTIONS, max_graphs=max_graphs))
    reference = ParaformerEngine(pack)
    kinds = [
        recognition_options_of("一丁", "丂"),
        NO_OPTIONS,
        recognition_options_of(*LONG_LIST),
        recognition_options_of("七", weight=0.4),
    ]
    bent = 0
    for batch in _batches():
        recognition_options = [kinds[index % len(kinds)] for index in range(len(batch))]
        found, plain = engine.token_ids(batch, recognition_options), engine.token_ids(batch)
        assert found == reference.token_ids(batch, recognition_options)
        neighbors = [
            index for index, options in enumerate(recognition_options) if not options.hotwords
        ]
        assert [found[index] for index in neighbors] == [plain[index] for index in neighbors]
        bent += found != plain
    assert bent > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_hotwords_run_beside_graphs_in_half_precision(tmp_path: Path, dtype: str) -> None:
    pack = tiny_paraformer(tmp_path / "tiny", TINY_SEACO)
    engine = GpuParaformer(pack, dataclasses.replace(OPTIONS, dtype=dtype))
    batch = _batches()[0]
    recognition_options = [
        recognition_options_of("一丁"),
        NO_OPTIONS,
        recognition_options_of(*LONG_LIST),
    ]
    plain, bent = engine.transcribe(batch), engine.transcribe(batch, recognition_options)
    assert bent[1] == plain[1]
    assert bent != plain
    assert engine.transcribe(batch) == plain


def test_two_batches_in_flight_use_their_own_hotwords(tmp_path: Path) -> None:
    engine = GpuParaformer(tiny_paraformer(tmp_path / "tiny", TINY_SEACO), OPTIONS)
    kinds = [recognition_options_of("一丁", "丂"), NO_OPTIONS, recognition_options_of("七丄丅")]
    jobs = [
        (batch, [kinds[(turn + index) % 3] for index in range(len(batch))])
        for turn in range(6)
        for batch in _batches()
    ]
    expected = [engine.token_ids(*job) for job in jobs]
    with ThreadPoolExecutor(engine.max_in_flight) as threads:
        assert list(threads.map(lambda job: engine.token_ids(*job), jobs)) == expected


def test_two_batches_in_flight_do_not_mix() -> None:
    pack = resolve("paraformer-demo", PackStore(), fetch=False)
    engine = GpuParaformer(pack, OPTIONS)
    batches = [batch for _ in range(6) for batch in _batches()]
    expected = [_words([*engine.transcribe(batch)]) for batch in batches]
    with ThreadPoolExecutor(engine.max_in_flight) as threads:
        found = [_words([*results]) for results in threads.map(engine.transcribe, batches)]
    assert found == expected


def test_engine_is_usable_after_out_of_memory() -> None:
    pack = resolve("paraformer-demo", PackStore(), fetch=False)
    engine = GpuParaformer(pack, OPTIONS)
    batch = _batches()[0]
    expected = _words([*engine.transcribe(batch)])
    reserved = torch.cuda.memory_reserved(CUDA)
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (reserved + 2**28) / total), CUDA)
    try:
        with pytest.raises(torch.cuda.OutOfMemoryError):
            engine.transcribe([speech_like(480_000, 1)] * 400)
        assert _words([*engine.transcribe(batch)]) == expected
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, CUDA)


@pytest.mark.parametrize("max_graphs", [0, 24])
def test_labels_are_those_of_the_cpu_engine(max_graphs: int) -> None:
    pack = resolve("ct-punc-demo", PackStore(), fetch=False)
    engine = GpuCtTransformer(pack, dataclasses.replace(OPTIONS, max_graphs=max_graphs))
    known = [token for token in pack.tokens if len(token) == 1 and token > "\u4e00"]
    texts = [known[at : at + 7 + at % 90] for at in range(0, 400, 9)]
    assert engine.label(texts) == CtTransformerEngine(pack).label(texts)
