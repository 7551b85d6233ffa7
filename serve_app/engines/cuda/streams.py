"""Runs batches on a device: copy to it, network, copy back, on two streams.

Two batches may be in flight: while one is computed, the next is packed into pinned memory and
copied on its own stream. The host synchronizes once per batch, with the copy of the results.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from serve_app.engines.cuda.buckets import Bucket
from serve_app.engines.cuda.graphs import Graphs
from serve_app.scheduling.micro_batcher import EngineStuck

_LOG = logging.getLogger(__name__)

MAX_IN_FLIGHT = 2

IntArray: TypeAlias = npt.NDArray[Any]
Fill: TypeAlias = Callable[[IntArray, npt.NDArray[np.int32]], None]
"""Writes a batch into (payload [n], lengths [sequences], initially zero)."""

Compute: TypeAlias = Callable[[Bucket, torch.Tensor, torch.Tensor, torch.Tensor], None]
"""(bucket, payload, lengths [sequences], results uint8), all on the device. It must not read a
value on the host, so that it can be captured."""

Finish: TypeAlias = Callable[[Bucket, npt.NDArray[np.int32], torch.Tensor], None]
"""(bucket, lengths on the host, results): runs after `Compute`, outside the graph."""


After: TypeAlias = Callable[[torch.Tensor], None]
"""(results): runs after `Finish` for one batch only. It may wait for the device, which gets no
other batch meanwhile."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a batch: payload elements, sequences, bytes of results."""

    payload: int
    sequences: int
    result_bytes: int

    def holds(self, other: Sizes) -> bool:
        return (
            self.payload >= other.payload
            and self.sequences >= other.sequences
            and self.result_bytes >= other.result_bytes
        )


@dataclass(frozen=True, slots=True)
class BatchRun:
    """A batch to run.

    Attributes:
        bucket: static sizes of the network.
        sizes: of the bucket; may exceed those of the stream, which is slow.
        used: elements of the payload that the batch uses; only these are copied.
        graph: False for a bucket that will not be used again.
        after: called with the results before they are copied to the host.
    """

    bucket: Bucket
    sizes: Sizes
    used: int
    graph: bool = True
    after: After | None = None


class _Slot:
    """The buffers of one batch in flight."""

    def __init__(
        self, sizes: Sizes, dtype: torch.dtype, device: torch.device, events: bool
    ) -> None:
        pinned = device.type == "cuda"
        self.sizes = sizes
        self.payload_host = torch.zeros(sizes.payload, dtype=dtype, pin_memory=pinned)
        self.lengths_host = torch.zeros(sizes.sequences, dtype=torch.int32, pin_memory=pinned)
        self.results_host = torch.zeros(sizes.result_bytes, dtype=torch.uint8, pin_memory=pinned)
        # Uninitialized: a fill on this thread's stream could run after the first copy, which
        # is on another stream.
        self.payload = torch.empty(sizes.payload, dtype=dtype, device=device)
        self.lengths = torch.empty(sizes.sequences, dtype=torch.int32, device=device)
        self.results = torch.empty(sizes.result_bytes, dtype=torch.uint8, device=device)
        self.uploaded = _event() if events else None
        # A blocking event lets the waiting thread sleep instead of spinning.
        self.done = _event(blocking=True) if events else None

    def upload(self, run: BatchRun) -> None:
        self.payload[: run.used].copy_(self.payload_host[: run.used], non_blocking=True)
        num_sequences = run.sizes.sequences
        self.lengths[:num_sequences].copy_(self.lengths_host[:num_sequences], non_blocking=True)


class DeviceStream:
    """Runs batches through one network on one device; `run` may be called by two threads.

    Args:
        device: where it computes; on the CPU there are no streams and no graphs.
        dtype: of the payrun.
        sizes: of the largest bucket.
        compute: the network.
        finish: runs after it, outside graphs.
        max_graphs: maximum number of CUDA graphs; 0 for none.
        asynchronous: whether to use streams and events; by default on a GPU.
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        sizes: Sizes,
        compute: Compute,
        finish: Finish | None = None,
        max_graphs: int = 0,
        asynchronous: bool | None = None,
    ) -> None:
        self._asynchronous = device.type == "cuda" if asynchronous is None else asynchronous
        self._device = device
        self._dtype = dtype
        self._compute = compute
        self._finish = finish
        self._slots: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        for _ in range(MAX_IN_FLIGHT):
            self._slots.put(_Slot(sizes, dtype, device, self._asynchronous))
        self._lock = threading.Lock()
        self._copying: torch.cuda.Stream | None = None
        self._computing: torch.cuda.Stream | None = None
        self._graphs: Graphs | None = None
        self._static: _Slot | None = None
        if self._asynchronous:
            self._copying = _stream(device)
            self._computing = _stream(device)
            if max_graphs > 0:
                # All graphs share these buffers, since they run in sequence.
                self._static = _Slot(sizes, dtype, device, events=False)
                self._graphs = Graphs(self._computing, max_graphs)
            torch.cuda.synchronize(device)

    @property
    def num_graphs(self) -> int:
        return 0 if self._graphs is None else len(self._graphs)

    def run(self, run: BatchRun, fill: Fill) -> npt.NDArray[np.uint8]:
        """Runs one batch, which `fill` writes; returns the bytes of its results.

        Raises:
            EngineStuck: the device failed, and only a new process can recover.
            torch.cuda.OutOfMemoryError: a smaller batch may fit.
        """
        free_slot = self._slots.get()
        slot = free_slot
        sizes = run.sizes
        try:
            if not slot.sizes.holds(sizes):
                slot = _Slot(sizes, self._dtype, self._device, self._asynchronous)
            lengths = slot.lengths_host.numpy()[: sizes.sequences]
            lengths[:] = 0
            fill(slot.payload_host.numpy()[: run.used], lengths)
            with torch.inference_mode():
                if self._computing is None or self._copying is None:
                    with self._lock:
                        slot.upload(run)
                        self._run_eagerly(run, slot)
                        slot.results_host.copy_(slot.results)
                else:
                    self._run_on_device(run, slot, self._copying, self._computing)
            return slot.results_host.numpy()[: sizes.result_bytes].copy()
        finally:
            self._slots.put(free_slot)

    def _run_on_device(
        self, run: BatchRun, slot: _Slot, copying: torch.cuda.Stream, computing: torch.cuda.Stream
    ) -> None:
        num_bytes = run.sizes.result_bytes
        try:
            with torch.cuda.stream(copying):
                slot.upload(run)
                if slot.uploaded is not None:
                    slot.uploaded.record()
            with self._lock, torch.cuda.stream(computing):
                if slot.uploaded is not None:
                    computing.wait_event(slot.uploaded)
                results = self._enqueue(run, slot)
                slot.results_host[:num_bytes].copy_(results[:num_bytes], non_blocking=True)
                if slot.done is not None:
                    slot.done.record()
            if slot.done is not None:
                slot.done.synchronize()
        except torch.cuda.OutOfMemoryError:
            # The caller retries with half the batch: release cached blocks, whose
            # fragmentation could prevent that.
            copying.synchronize()
            computing.synchronize()
            torch.cuda.empty_cache()
            raise
        except torch.AcceleratorError as error:
            # Such a CUDA error is sticky: every later call in this process fails.
            raise EngineStuck(f"the device failed: {error}") from error

    def _enqueue(self, run: BatchRun, slot: _Slot) -> torch.Tensor:
        """Enqueues the computation on the current stream; returns the tensor of its results."""
        graphs, static = self._graphs, self._static
        usable = run.graph and static is not None and static.sizes.holds(run.sizes)
        if graphs is None or static is None or not usable:
            self._run_eagerly(run, slot)
            return slot.results
        num_sequences = run.sizes.sequences
        static_lengths = static.lengths[:num_sequences]
        static.payload[: run.used].copy_(slot.payload[: run.used], non_blocking=True)
        static_lengths.copy_(slot.lengths[:num_sequences], non_blocking=True)

        def body() -> None:
            self._compute(run.bucket, static.payload, static_lengths, static.results)

        graphs.run(run.bucket, body)
        self._run_after_graph(run, slot, static.results)
        return static.results

    def _run_eagerly(self, run: BatchRun, slot: _Slot) -> None:
        num_sequences = run.sizes.sequences
        self._compute(run.bucket, slot.payload, slot.lengths[:num_sequences], slot.results)
        self._run_after_graph(run, slot, slot.results)

    def _run_after_graph(self, run: BatchRun, slot: _Slot, results: torch.Tensor) -> None:
        """Runs the steps that are in no graph."""
        if self._finish is not None:
            lengths = slot.lengths_host.numpy()[: run.sizes.sequences]
            self._finish(run.bucket, lengths, results)
        if run.after is not None:
            run.after(results)


def on_device(device: torch.device) -> torch.cuda.device | nullcontext[None]:
    """Makes a device current for this thread, as streams and kernels require."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _event(blocking: bool = False) -> torch.cuda.Event:
    return torch.cuda.Event(blocking=blocking)  # type: ignore[no-untyped-call]  # PyTorch's


def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # PyTorch's
