from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from serve_app.engines.cuda.attention import attend_padded, choose_attention, probe
from serve_app.engines.cuda.sequence_layout import SequenceLayout, lay_out

CPU = torch.device("cpu")


@settings(max_examples=30, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_each_sequence_attends_to_itself_alone(pairs: list[tuple[int, int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries = lay_out(torch.tensor([query for query, _ in pairs]), 96, 16)
    keys = lay_out(torch.tensor([key for _, key in pairs]), 96, 16)
    query, key, value = (torch.randn(96, 2, 8, generator=generator) for _ in range(3))
    key[int(keys.offsets[-1]) :] = torch.nan
    found = attend_padded(query, key, value, queries, keys)
    for index in range(len(pairs)):
        mine = slice(*queries.offsets[index : index + 2].tolist())
        theirs = slice(*keys.offsets[index : index + 2].tolist())
        alone = functional.scaled_dot_product_attention(
            query[mine].transpose(0, 1), key[theirs].transpose(0, 1), value[theirs].transpose(0, 1)
        )
        expected = alone.transpose(0, 1).reshape(-1, 16)
        torch.testing.assert_close(found[mine], expected, atol=1e-5, rtol=1e-5)


def test_probe_accepts_the_reference() -> None:
    assert probe(attend_padded, CPU, torch.float32, 4, 8) == 0.0


def test_probe_detects_kernels_that_cross_sequences() -> None:
    def careless(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        query_layout: SequenceLayout,
        key_layout: SequenceLayout,
    ) -> torch.Tensor:
        whole = lay_out(key_layout.offsets[-1:], key_layout.num_rows, key_layout.num_rows)
        asked = lay_out(query_layout.offsets[-1:], query_layout.num_rows, whole.longest)
        return attend_padded(query, key, value, asked, whole)

    assert probe(careless, CPU, torch.float32, 4, 8) > 0.1


def test_cpus_use_the_reference() -> None:
    assert choose_attention(CPU, torch.bfloat16, 4, 8) is attend_padded


def test_missing_kernel_is_skipped(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*arguments: object) -> float:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr("serve_app.engines.cuda.attention.probe", missing)
    chosen = choose_attention(torch.device("cuda", 0), torch.bfloat16, 4, 8)
    assert chosen is attend_padded
    assert caplog.text.count("no such kernel") == 2


def test_inaccurate_kernel_is_skipped(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.engines.cuda.attention.probe", lambda *arguments: 0.5)
    chosen = choose_attention(torch.device("cuda", 0), torch.float32, 4, 8)
    assert chosen is attend_padded
    assert "deviates by 0.5" in caplog.text
