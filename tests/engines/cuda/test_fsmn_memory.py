from __future__ import annotations

import pytest
import torch

from serve_app.engines.cuda.fsmn_memory import choose_fsmn_memory, fsmn_memory_reference, probe
from serve_app.engines.cuda.sequence_layout import SequenceLayout, lay_out
from serve_app.engines.paraformer.packing import ConvBuffer, PackedSequences

CPU = torch.device("cpu")


@pytest.mark.parametrize("left", [0, 5, 10])
def test_memory_is_that_of_the_cpu_engine(left: int) -> None:
    generator = torch.Generator().manual_seed(1)
    lengths = [7, 1, 30]
    rows = torch.randn(64, 16, generator=generator)
    rows[38:] = torch.nan
    taps = torch.randn(11, 16, generator=generator)
    spaced = ConvBuffer(PackedSequences(lengths, CPU), 16, left, 10 - left)
    convolved = spaced.convolve(rows[:38], taps.T[:, None].contiguous(), groups=16)
    found = fsmn_memory_reference(rows, taps, lay_out(torch.tensor(lengths), 64, 32), left)
    torch.testing.assert_close(found[:38], convolved + rows[:38], atol=1e-5, rtol=1e-5)


def test_addend_and_bias_are_added() -> None:
    sequence_layout = lay_out(torch.tensor([4]), 4, 4)
    zeros, ones = torch.zeros(4, 3), torch.ones(4, 3)
    found = fsmn_memory_reference(
        zeros, torch.ones(11, 3), sequence_layout, 5, ones, torch.full((3,), 2.0)
    )
    assert found.tolist() == [[3.0] * 3] * 4


def test_probe_detects_kernels_that_cross_sequences() -> None:
    def careless(
        values: torch.Tensor,
        taps: torch.Tensor,
        sequence_layout: SequenceLayout,
        left: int,
        addend: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        whole = lay_out(
            sequence_layout.offsets[-1:], sequence_layout.num_rows, sequence_layout.num_rows
        )
        return fsmn_memory_reference(values, taps, whole, left, addend, bias)

    assert probe(fsmn_memory_reference, CPU, torch.float32) == 0.0
    assert probe(careless, CPU, torch.float32) > 0.1


def test_without_triton_the_reference_is_used(caplog: pytest.LogCaptureFixture) -> None:
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here: tests/engines/cuda/test_cuda.py covers it")
    assert choose_fsmn_memory(CPU, torch.bfloat16) is fsmn_memory_reference
    assert choose_fsmn_memory(torch.device("cuda", 0), torch.bfloat16) is fsmn_memory_reference
    assert "no fused FSMN" in caplog.text
