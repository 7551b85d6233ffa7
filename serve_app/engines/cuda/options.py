"""Options of the CUDA engines, and the set-up of their device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from serve_app.core.errors import ConfigurationError
from serve_app.engines.cuda.weights import DTYPES


@dataclass(frozen=True, slots=True)
class GpuOptions:
    """Options of both CUDA engines.

    Attributes:
        device: as PyTorch writes it: `cuda`, `cuda:1`; `cpu` for tests.
        dtype: `bfloat16`, `float16` or `float32`, of the matrix products.
        max_batch_rows: budget of a batch in encoder frames, or words. Larger batches run
            without a graph.
        memory_fraction: share of the device's memory for this process; None for all.
        warm_up_s: time for capturing graphs before the engine is ready. The rest are
            captured on first use.
        max_graphs: maximum number of CUDA graphs; 0 for none.
        tokens_per_frame: capacity for tokens per frame of 60 ms, averaged over a batch; 0.5 is
            8.3 per second. A batch with more tokens is run twice.
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
        """The dtype of PyTorch.

        Raises:
            ConfigurationError: it is not supported.
        """
        if self.dtype not in DTYPES:
            raise ConfigurationError(
                f"dtype {self.dtype!r} does not run on a GPU; use {', '.join(DTYPES)}"
            )
        return DTYPES[self.dtype]


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Facts about the warm-up of an engine, for the log.

    Attributes:
        wall_s: duration.
        num_graphs: captured CUDA graphs.
        num_buckets: number of buckets.
        headroom: factor by which activations could exceed those of the warm-up before they
            overflow the dtype.
        attention: the attention implementation.
        memory: the implementation of the FSMN memory.
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


def configure_device(device: torch.device, memory_fraction: float | None) -> None:
    """Caps this process's GPU memory and turns off reduced-precision float32.

    Ray's `num_gpus` does not limit memory; without a cap one replica could use the share of
    others on the device. Beyond the cap PyTorch raises OutOfMemoryError, and the batch is halved.

    Args:
        device: a CPU is left as it is.
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
    # TF32 changes where tokens fire. Half-precision products are accumulated in float32.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
