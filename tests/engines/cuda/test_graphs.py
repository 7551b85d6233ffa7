from __future__ import annotations

import pytest
import torch

from serve_app.engines.cuda.buckets import Bucket
from serve_app.engines.cuda.graphs import Graphs
from tests.engines.cuda.cuda_fakes import FakeCuda, FakeGraph


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    fake.install(monkeypatch)
    monkeypatch.setattr(FakeGraph, "captured", staticmethod(lambda: None))
    return fake


def _bucket(rows: int) -> Bucket:
    return Bucket(rows, 0, 1, 64)


def _graphs(limit: int) -> Graphs:
    return Graphs(torch.cuda.Stream(), limit)  # type: ignore[no-untyped-call]  # PyTorch's


def test_bucket_is_captured_once(cuda: FakeCuda) -> None:
    graphs = _graphs(4)
    runs: list[int] = []
    for _ in range(3):
        graphs.run(_bucket(64), lambda: runs.append(1))
    assert cuda.num_captures == 1
    assert len(graphs) == 1
    # Twice before the capture, so that libraries make what they need, and once in it.
    assert len(runs) == 3


def test_least_recently_used_graph_is_evicted_first(cuda: FakeCuda) -> None:
    graphs = _graphs(2)
    for rows in (64, 128, 64, 192, 64, 128):
        graphs.run(_bucket(rows), lambda: None)
    assert len(graphs) == 2
    assert cuda.num_captures == 4


@pytest.mark.parametrize("error", [RuntimeError("not permitted"), torch.cuda.OutOfMemoryError()])
def test_bucket_that_cannot_be_captured_runs_without_a_graph(
    cuda: FakeCuda, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    graphs = _graphs(2)
    cuda.fail_capture = error
    runs: list[int] = []
    for _ in range(2):
        graphs.run(_bucket(64), lambda: runs.append(1))
    assert cuda.num_captures == 1
    assert len(graphs) == 0
    assert len(runs) == 4
    assert "Bucket(rows=64" in caplog.text
