from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from serve_app.core.errors import ConfigurationError
from serve_app.core.records import SAMPLES_PER_MS
from serve_app.engines.devices import check_dtype
from serve_app.engines.paraformer import int8
from serve_app.engines.paraformer.cpu import ParaformerEngine, ParaformerOptions
from serve_app.engines.paraformer.int8 import (
    QuantizedLinear,
    quantize_linears,
    quantize_rows,
)
from serve_app.engines.paraformer.replacing import release_checkpoint
from serve_app.packs.integrity import BUILTIN_DIRECTORY
from serve_app.packs.pack import PackContents, open_pack
from serve_app.transcript.cer import character_error_rate
from tests.engines.paraformer.batches import neighbors_of_an_overflow, recognitions
from tests.fakes.signals import speech_like
from tests.fakes.tiny_packs import TinyParaformer, tiny_paraformer

INT8 = ParaformerOptions(dtype="int8")
LENGTHS = st.one_of(st.integers(0, 500), st.integers(500, 3_000), st.integers(3_000, 60_000))


@pytest.fixture(scope="module", params=["Paraformer", "BiCifParaformer"])
def pack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PackContents:
    directory = tmp_path_factory.mktemp("packs") / request.param
    return tiny_paraformer(directory, TinyParaformer(request.param, seed=1))


@pytest.fixture(scope="module")
def engine(pack: PackContents) -> ParaformerEngine:
    return ParaformerEngine(pack, INT8)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(LENGTHS, min_size=1, max_size=8), seed=st.integers(0, 1000))
def test_result_does_not_depend_on_batch_mates_to_the_last_bit(
    engine: ParaformerEngine, lengths: list[int], seed: int
) -> None:
    batch = [speech_like(length, seed + at) for at, length in enumerate(lengths)]
    for found, pcm in zip(recognitions(engine, batch), batch, strict=True):
        assert found.tokens == recognitions(engine, [pcm])[0].tokens


def test_loud_item_does_not_reduce_the_precision_of_a_quiet_one(engine: ParaformerEngine) -> None:
    quiet = (speech_like(40_000, 3) // 64).astype(np.int16)
    loud = np.where(np.arange(40_000) % 200 < 100, 32_767, -32_768).astype(np.int16)
    assert recognitions(engine, [loud, quiet])[1] == recognitions(engine, [quiet])[0]


@pytest.mark.parametrize("num_samples", [0, 1, 399, 400, 1_000])
def test_short_item_is_answered(engine: ParaformerEngine, num_samples: int) -> None:
    assert len(recognitions(engine, [speech_like(num_samples, 1)])) == 1


def test_silence_is_empty(engine: ParaformerEngine) -> None:
    assert recognitions(engine, [np.zeros(48_000, np.int16)])[0].tokens == ()


def test_overflow_of_one_item_does_not_affect_its_batch(
    engine: ParaformerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for found, alone in neighbors_of_an_overflow(engine, monkeypatch):
        assert found == alone


def test_facts_count_the_parameters_of_the_pack(
    pack: PackContents, engine: ParaformerEngine
) -> None:
    assert engine.describe() == ParaformerEngine(pack).describe()


@pytest.mark.parametrize("dtype", ["float16", "qint8", ""])
def test_unknown_dtype_is_refused(pack: PackContents, dtype: str) -> None:
    with pytest.raises(ConfigurationError, match="float32 or bfloat16 or int8"):
        ParaformerEngine(pack, ParaformerOptions(dtype=dtype))


def test_int8_on_a_gpu_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cpu"):
        check_dtype("int8", torch.device("cuda"), ("float32", "int8"))


def test_error_rate_on_the_demo_stays_within_one_percent() -> None:
    pcm, _ = soundfile.read(BUILTIN_DIRECTORY / "samples" / "demo.flac", dtype="int16")
    lines = json.loads((BUILTIN_DIRECTORY / "samples" / "demo.json").read_text("utf-8"))
    batch = [
        pcm[line["start_ms"] * SAMPLES_PER_MS : line["end_ms"] * SAMPLES_PER_MS] for line in lines
    ]
    said = "".join(line["text"] for line in lines)
    pack = open_pack(BUILTIN_DIRECTORY / "paraformer-demo")

    def error_rate(options: ParaformerOptions) -> float:
        found = recognitions(ParaformerEngine(pack, options), batch)
        heard = "".join(token.text for recognition in found for token in recognition.tokens)
        return character_error_rate(said, heard)

    assert error_rate(INT8) == pytest.approx(error_rate(ParaformerOptions()), abs=0.01)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("num_in", "num_out"), [(32, 96), (560, 48), (33, 7)])
def test_product_is_near_that_of_float32(num_in: int, num_out: int, bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(num_in, num_out, bias=bias)
    rows = torch.randn(50, num_in) * torch.logspace(-6, 6, 50)[:, None]
    with torch.inference_mode():
        expected = linear(rows)
        found = QuantizedLinear(linear)(rows)
    step = expected.abs().amax(dim=1, keepdim=True)
    assert float(((found - expected) / step).abs().max()) < 0.03


def test_row_of_zeros_gives_the_bias() -> None:
    linear = nn.Linear(32, 16)
    with torch.inference_mode():
        found = QuantizedLinear(linear)(torch.zeros(2, 32))
    assert torch.equal(found, linear.bias.detach().expand(2, 16))


def test_output_whose_weights_are_zero_is_zero() -> None:
    linear = nn.Linear(32, 16, bias=False)
    with torch.inference_mode():
        linear.weight[3] = 0.0
        found = QuantizedLinear(linear)(torch.randn(4, 32))
    assert torch.equal(found[:, 3], torch.zeros(4))


def test_no_rows_give_no_rows() -> None:
    with torch.inference_mode():
        assert QuantizedLinear(nn.Linear(32, 16))(torch.empty(0, 32)).shape == (0, 16)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_non_finite_row_does_not_affect_other_rows(value: float) -> None:
    linear = QuantizedLinear(nn.Linear(32, 16))
    rows = torch.randn(3, 32)
    with torch.inference_mode():
        expected = linear(rows)
        rows[1, 5] = value
        found = linear(rows)
    assert not torch.isfinite(found[1]).any()
    assert torch.equal(found[::2], expected[::2])


def test_codes_and_steps_give_the_rows_back() -> None:
    rows = torch.tensor([[-4.0, 1.0, 2.0], [0.0, 0.0, 0.0], [1e-20, -1e-20, 0.0]])
    codes, steps = quantize_rows(rows)
    assert codes.tolist() == [[1, 160, 192], [128, 128, 128], [255, 1, 128]]
    errors = ((codes.float() - 128.0) * steps - rows).abs()
    assert bool((errors <= 0.5001 * steps).all())


def test_float32_weights_are_released() -> None:
    module = nn.Sequential(nn.Linear(32, 64), nn.LayerNorm(64), nn.Linear(64, 8))
    addresses = {parameter.data_ptr() for parameter in module.parameters()}
    module.requires_grad_(False)
    quantize_linears(module)
    release_checkpoint(module)
    left = dict(module.named_parameters())
    assert list(left) == ["1.weight", "1.bias"]
    assert not addresses & {parameter.data_ptr() for parameter in left.values()}


def test_weights_of_a_mapped_file_leave_memory_and_stay_readable(tmp_path: Path) -> None:
    torch.save(nn.Linear(2048, 4096).state_dict(), tmp_path / "model.pt")
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(2048, 4096))
    state = torch.load(tmp_path / "model.pt", mmap=True)
    expected = state["weight"].clone()
    module[0].load_state_dict(state, assign=True)
    module.requires_grad_(False)
    mapped_kib = file_memory_kib()
    quantize_linears(module)
    assert file_memory_kib() < mapped_kib - 30_000
    assert torch.equal(state["weight"], expected)


def test_weights_that_are_in_memory_only_are_kept() -> None:
    linear = nn.Linear(2048, 1024).requires_grad_(False)
    expected = linear.weight.clone()
    quantize_linears(nn.Sequential(linear))
    assert torch.equal(linear.weight, expected)


def test_cpu_whose_int8_sums_saturate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    true_forward = QuantizedLinear.forward

    def saturated(self: QuantizedLinear, rows: torch.Tensor) -> torch.Tensor:
        return true_forward(self, rows).clamp_(max=32.0)

    monkeypatch.setattr(QuantizedLinear, "forward", saturated)
    with pytest.raises(ConfigurationError, match="saturate"):
        quantize_linears(nn.Sequential(nn.Linear(8, 8)))


def test_build_without_the_kernels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(rows: torch.Tensor) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(int8, "quantize_rows", absent)
    with pytest.raises(ConfigurationError, match="oneDNN"):
        quantize_linears(nn.Sequential(nn.Linear(8, 8)))


def test_memory_does_not_grow_with_the_variety_of_batches() -> None:
    linear = nn.Linear(512, 2048).requires_grad_(False)
    quantized = QuantizedLinear(linear)
    before_kib = own_memory_kib()
    with torch.inference_mode():
        for num_rows in range(1, 400):
            quantized(torch.ones(num_rows, 512))
    # A kernel for each of the 399 lengths took 80 MB and more.
    assert own_memory_kib() - before_kib < 40_000


def own_memory_kib() -> int:
    """Anonymous memory of this process."""
    return _status_kib("RssAnon")


def file_memory_kib() -> int:
    """Pages of files that this process holds."""
    return _status_kib("RssFile")


def _status_kib(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(key))
    return int(line.split()[1])
