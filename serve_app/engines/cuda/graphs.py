"""CUDA graphs, one per bucket, and the static buffers that they write.

With a graph, a batch is one launch instead of a thousand.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable

import torch

from serve_app.engines.cuda.buckets import Bucket

_LOG = logging.getLogger(__name__)
_RUNS_BEFORE_CAPTURE = 2


class Graphs:
    """Captured graphs with LRU eviction.

    They share one memory pool. That is safe because they run on one stream in sequence, and read
    and write only buffers outside the pool.

    Args:
        stream: what they run on.
        limit: maximum number of graphs.
    """

    def __init__(self, stream: torch.cuda.Stream, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: OrderedDict[Bucket, torch.cuda.CUDAGraph] = OrderedDict()
        self._refused: set[Bucket] = set()

    def __len__(self) -> int:
        return len(self._graphs)

    def run(self, bucket: Bucket, body: Callable[[], None]) -> None:
        """Enqueues the work of `body` on the stream; captures it first if needed.

        Args:
            bucket: identifies the work of `body`.
            body: enqueues kernels; never reads a device value on the host.
        """
        graph = self._graphs.get(bucket)
        if graph is None and bucket not in self._refused:
            graph = self._capture(bucket, body)
        if graph is None:
            body()
            return
        self._graphs.move_to_end(bucket)
        graph.replay()

    def _capture(self, bucket: Bucket, body: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
        started_s = time.perf_counter()
        # Libraries create handles and workspaces, and Triton compiles its kernels, on first use;
        # none of that may happen during capture.
        for _ in range(_RUNS_BEFORE_CAPTURE):
            body()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads keep copying meanwhile, which "global" would forbid.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                body()
        except torch.cuda.OutOfMemoryError:
            _LOG.warning("no memory for the graph of %s; running without it", bucket)
            self._refused.add(bucket)
            torch.cuda.empty_cache()
            return None
        except RuntimeError as error:
            _LOG.warning("%s cannot be captured, running without a graph: %s", bucket, error)
            self._refused.add(bucket)
            return None
        self._graphs[bucket] = graph
        while len(self._graphs) > self._limit:
            # Its kernels may still be running.
            self._stream.synchronize()
            dropped, _ = self._graphs.popitem(last=False)
            _LOG.info("evicted the graph of %s for that of %s", dropped, bucket)
        _LOG.info("captured %s in %.2f s", bucket, time.perf_counter() - started_s)
        return graph


class StaticBuffers:
    """A matrix at a fixed address, as a graph requires.

    One batch uses it at a time; the next one overwrites it.

    Args:
        max_rows: of the largest bucket.
        size: width of the rows.
        dtype: of the rows.
        device: of the rows.
    """

    def __init__(self, max_rows: int, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self._max_rows = max_rows
        self._rows = torch.zeros(max_rows, size, dtype=dtype, device=device)
        self._oversized: torch.Tensor | None = None

    def first(self, num_rows: int) -> torch.Tensor:
        """Returns the first rows, [num_rows, size], for writing or reading."""
        if num_rows <= self._max_rows:
            return self._rows[:num_rows]
        # A batch beyond every bucket has no graph: its buffer may be replaced.
        if self._oversized is None or len(self._oversized) != num_rows:
            self._oversized = None
            self._oversized = self._rows.new_zeros(num_rows, self._rows.shape[1])
        return self._oversized
