"""CUDA graphs, one per bucket: a batch is one launch instead of a thousand.

`StaticBuffers` keeps the rows that a graph leaves behind for what runs after it.
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
    """Captured graphs, of which the least recently used goes first.

    They share one memory pool: each is complete in itself, reads and writes only
    buffers outside of the pool, and runs on one stream after the others.

    Args:
        stream: what they run on.
        limit: how many are kept.
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
        """Enqueues the work of `body` on the stream, captured first if need be.

        Args:
            bucket: body does the same work whenever this is the same.
            body: enqueues kernels; never looks at a value of the device.
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
        # Libraries make handles and workspaces, and Triton its kernels, as they are
        # first used; none of that may happen during the capture.
        for _ in range(_RUNS_BEFORE_CAPTURE):
            body()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads go on copying meanwhile, which "global" would forbid.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                body()
        except torch.cuda.OutOfMemoryError:
            _LOG.warning("no memory for the graph of %s; it runs without", bucket)
            self._refused.add(bucket)
            torch.cuda.empty_cache()
            return None
        except RuntimeError as error:
            _LOG.warning("%s cannot be captured and runs without a graph: %s", bucket, error)
            self._refused.add(bucket)
            return None
        self._graphs[bucket] = graph
        while len(self._graphs) > self._limit:
            # Its kernels may still be running.
            self._stream.synchronize()
            dropped, _ = self._graphs.popitem(last=False)
            _LOG.info("the graph of %s was dropped for that of %s", dropped, bucket)
        _LOG.info("captured %s in %.2f s", bucket, time.perf_counter() - started_s)
        return graph


class StaticBuffers:
    """A matrix that always lies in the same place, as a graph demands.

    Used by one batch at a time: the next one overwrites it.

    Args:
        max_rows: of the largest bucket.
        size: width of the rows.
        dtype: of the rows.
        device: where they lie.
    """

    def __init__(self, max_rows: int, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self._max_rows = max_rows
        self._rows = torch.zeros(max_rows, size, dtype=dtype, device=device)
        self._oversized: torch.Tensor | None = None

    def first(self, num_rows: int) -> torch.Tensor:
        """Returns the first rows, [num_rows, size], to be written or read."""
        if num_rows <= self._max_rows:
            return self._rows[:num_rows]
        # A batch beyond every bucket has no graph; what served the one before may go.
        if self._oversized is None or len(self._oversized) != num_rows:
            self._oversized = None
            self._oversized = self._rows.new_zeros(num_rows, self._rows.shape[1])
        return self._oversized
