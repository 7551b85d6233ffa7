"""How an engine runs on a CUDA device: types, graphs, warm-up, and its share of the memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from serve_app.core.errors import ConfigurationError
from serve_app.engines.cuda.weights import DTYPES


@dataclass(frozen=True, slots=True)
class GpuOptions:
    """Options of both engines.

    Attributes:
        device: as PyTorch writes it: `cuda`, `cuda:1`; `cpu` for tests.
        dtype: `bfloat16`, `float16` or `float32`, of the matrix products.
        max_batch_rows: budget of a batch in encoder frames, or words. Larger batches
            are run, too, but without a graph.
        memory_fraction: of the device, that this process may take; None for all.
        warm_up_s: time for making graphs before the engine is ready. Those that it
            did not suffice for are made when they are first needed.
        max_graphs: CUDA graphs that are kept; 0 for none.
        tokens_per_frame: room for tokens, for each frame of 60 ms; 0.5 is 8.3 a
            second, averaged over a batch. A batch with more is run twice.
    """

    device: str = "cuda"
    dtype: str = "bfloat16"
    max_batch_rows: int = 20_000
    memory_fraction: float | None = None
    warm_up_s: float = 60.0
    max_graphs: int = 24
    tokens_per_frame: float = 0.5

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as PyTorch has it.

        Raises:
            ConfigurationError: it is not one of the three.
        """
        if self.dtype not in DTYPES:
            raise ConfigurationError(
                f"dtype {self.dtype!r} does not run on a GPU; use {', '.join(DTYPES)}"
            )
        return DTYPES[self.dtype]


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What was done before an engine was ready.

    Attributes:
        wall_s: time it took.
        num_graphs: CUDA graphs that were made.
        num_buckets: that there are.
        headroom: how many times larger activations could be than those of the
            warm-up before they overflow the dtype.
        attention: the implementation in use.
        memory: that of the FSMN memory.
    """

    wall_s: float
    num_graphs: int
    num_buckets: int
    headroom: float
    attention: str
    memory: str

    def __str__(self) -> str:
        return (
            f"warm in {self.wall_s:.1f} s: {self.num_graphs} CUDA graphs for {self.num_buckets} "
            f"batch sizes, {self.attention}, {self.memory}, activations could be "
            f"{self.headroom:.3g} times larger"
        )


def limit_memory(device: torch.device, memory_fraction: float | None) -> None:
    """Caps this process's memory, and turns off what rounds float32 to fewer bits.

    Ray's `num_gpus` is a number in its books only; without a cap one replica could
    take what its neighbors on the device were promised. Beyond the cap PyTorch
    raises OutOfMemoryError, and the batch is halved.

    Args:
        device: nothing happens for a CPU.
        memory_fraction: of the device's memory, above 0 and at most 1; None for no cap.

    Raises:
        ConfigurationError: the fraction is out of range.
    """
    if memory_fraction is not None and not 0.0 < memory_fraction <= 1.0:
        raise ConfigurationError(
            f"memory_fraction must be above 0 and at most 1, not {memory_fraction}"
        )
    if device.type != "cuda":
        return
    if memory_fraction is not None:
        torch.cuda.set_per_process_memory_fraction(memory_fraction, device)
    # TF32 moves where tokens fire; sums of half precision products stay in float32.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
