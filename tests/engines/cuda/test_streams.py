from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch

from serve_app.engines.cuda.buckets import Bucket
from serve_app.engines.cuda.streams import After, BatchRun, DeviceStream, IntArray, Sizes
from tests.engines.cuda.cuda_fakes import FakeCuda, FakeEvent, FakeGraph

BUCKET = Bucket(rows=8, tokens=0, sequences=2, longest=8)
SIZES = Sizes(payload=8, sequences=2, result_bytes=8)


class Doubling:
    """A network that doubles numbers; remembers how it was called."""

    def __init__(self) -> None:
        self.num_calls = 0
        self.error: Exception | None = None

    def __call__(
        self, bucket: Bucket, payload: torch.Tensor, lengths: torch.Tensor, results: torch.Tensor
    ) -> None:
        self.num_calls += 1
        if self.error is not None:
            raise self.error
        results[: bucket.rows].copy_(2 * payload[: bucket.rows])


def _run(stream: DeviceStream, numbers: Sequence[int], graph: bool = True) -> list[int]:
    def fill(payload: IntArray, lengths: npt.NDArray[np.int32]) -> None:
        assert not lengths.any()
        payload[: len(numbers)] = numbers
        lengths[0] = len(numbers)

    sizes = Sizes(max(SIZES.payload, len(numbers)), 2, max(SIZES.result_bytes, len(numbers)))
    bucket = Bucket(sizes.payload, 0, 2, 8)
    row = stream.run(BatchRun(bucket, sizes, len(numbers), graph), fill)
    return [int(number) for number in row[: len(numbers)]]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    fake.install(monkeypatch)
    return fake


def test_results_are_copied_back() -> None:
    stream = DeviceStream(torch.device("cpu"), torch.int32, SIZES, Doubling())
    assert _run(stream, [1, 2, 3]) == [2, 4, 6]
    assert _run(stream, list(range(20))) == list(range(0, 40, 2))


def test_host_synchronizes_once_per_batch(cuda: FakeCuda) -> None:
    stream = DeviceStream(torch.device("cpu"), torch.int32, SIZES, Doubling(), asynchronous=True)
    for _ in range(3):
        assert _run(stream, [1, 2]) == [2, 4]
    assert FakeEvent.waits == 3


def test_graph_replays_with_the_input_of_each_batch(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Doubling()
    stream = DeviceStream(
        torch.device("cpu"), torch.int32, SIZES, network, max_graphs=2, asynchronous=True
    )

    def replay(graph: FakeGraph) -> None:
        # What a replay does: the captured work, on the buffers of the capture.
        assert stream._static is not None
        network(BUCKET, stream._static.payload, stream._static.lengths, stream._static.results)

    monkeypatch.setattr(FakeGraph, "replay", replay)
    assert [_run(stream, [number]) for number in (1, 2, 3)] == [[2], [4], [6]]
    assert stream.num_graphs == cuda.num_captures == 1
    assert network.num_calls == 3 + 3


def test_batch_beyond_the_buffers_runs_without_a_graph(cuda: FakeCuda) -> None:
    stream = DeviceStream(
        torch.device("cpu"), torch.int32, SIZES, Doubling(), max_graphs=2, asynchronous=True
    )
    assert _run(stream, list(range(20))) == list(range(0, 40, 2))
    assert _run(stream, [5], graph=False) == [10]
    assert stream.num_graphs == 0


def test_finish_gets_the_lengths_on_the_host(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []

    def finish(bucket: Bucket, lengths: npt.NDArray[np.int32], results: torch.Tensor) -> None:
        seen.append(lengths.tolist())
        results[0] = 99

    monkeypatch.setattr(FakeGraph, "replay", lambda graph: None)
    stream = DeviceStream(
        torch.device("cpu"), torch.int32, SIZES, Doubling(), finish, 2, asynchronous=True
    )
    assert _run(stream, [1, 2]) == [99, 4]
    assert seen == [[2, 0]]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("graph", [False, True])
def test_after_runs_for_its_own_batch_only(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, asynchronous: bool, graph: bool
) -> None:
    stream = DeviceStream(
        torch.device("cpu"), torch.int32, SIZES, Doubling(), None, 2, asynchronous=asynchronous
    )
    monkeypatch.setattr(FakeGraph, "replay", lambda graph: None)

    def run(after: After | None) -> list[int]:
        row = stream.run(BatchRun(BUCKET, SIZES, 2, graph, after), lambda payload, lengths: None)
        return [int(byte) for byte in row[:2]]

    def write_sevens(results: torch.Tensor) -> None:
        results[:2].fill_(7)

    assert run(write_sevens) == [7, 7]
    assert run(write_sevens) == [7, 7]
    stream = DeviceStream(
        torch.device("cpu"), torch.int32, SIZES, Doubling(), None, 2, asynchronous=asynchronous
    )
    assert 7 not in run(None)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_slots_survive_a_network_that_raises(cuda: FakeCuda, asynchronous: bool) -> None:
    network = Doubling()
    stream = DeviceStream(
        torch.device("cpu"), torch.int32, SIZES, network, asynchronous=asynchronous
    )
    network.error = torch.cuda.OutOfMemoryError("out of memory")
    for _ in range(5):
        with pytest.raises(torch.cuda.OutOfMemoryError):
            _run(stream, [1])
    assert cuda.num_emptied == (5 if asynchronous else 0)
    network.error = None
    assert _run(stream, [1]) == [2]


def test_threads_get_their_own_results() -> None:
    stream = DeviceStream(torch.device("cpu"), torch.int32, SIZES, Doubling())
    wrong: list[int] = []

    def work(number: int) -> None:
        wrong.extend(1 for _ in range(50) if _run(stream, [number]) != [2 * number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
