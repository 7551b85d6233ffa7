"""The FSMN memory as one Triton kernel; import it only where Triton is installed."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from serve_app.engines.cuda.sequence_layout import SequenceLayout

_BLOCK_ROWS = 32
_BLOCK_COLUMNS = 64


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]  # Triton may be absent
def _fsmn_memory_kernel(  # type: ignore[no-untyped-def, unused-ignore]  # pointers and numbers of the device
    values,
    values_stride,
    taps,
    position,
    length,
    addend,
    addend_stride,
    bias,
    output,
    num_rows,
    num_columns,
    left,
    kernel: tl.constexpr,
    has_addend: tl.constexpr,
    has_bias: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
):
    rows = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    columns = tl.program_id(1) * block_columns + tl.arange(0, block_columns)
    in_rows = rows < num_rows
    in_columns = columns < num_columns
    inside = in_rows[:, None] & in_columns[None, :]
    wide_rows = rows.to(tl.int64)
    positions = tl.load(position + rows, mask=in_rows, other=0)
    lengths = tl.load(length + rows, mask=in_rows, other=0)

    own = values + wide_rows[:, None] * values_stride + columns[None, :]
    total = tl.load(own, mask=inside, other=0.0).to(tl.float32)
    if has_addend:
        added = addend + wide_rows[:, None] * addend_stride + columns[None, :]
        total += tl.load(added, mask=inside, other=0.0).to(tl.float32)
    if has_bias:
        total += tl.load(bias + columns, mask=in_columns, other=0.0).to(tl.float32)[None, :]
    convolved = tl.zeros((block_rows, block_columns), dtype=tl.float32)
    for tap in tl.static_range(kernel):
        shift = tap - left
        target = positions + shift
        reach = (target >= 0) & (target < lengths)
        neighbor = values + (wide_rows + shift)[:, None] * values_stride + columns[None, :]
        loaded = tl.load(neighbor, mask=inside & reach[:, None], other=0.0).to(tl.float32)
        weight = tl.load(taps + tap * num_columns + columns, mask=in_columns, other=0.0)
        convolved += loaded * weight[None, :]
    target_cells = output + wide_rows[:, None] * num_columns + columns[None, :]
    tl.store(target_cells, (total + convolved).to(output.dtype.element_ty), mask=inside)


def fsmn_memory_fused(
    values: torch.Tensor,
    taps: torch.Tensor,
    sequence_layout: SequenceLayout,
    left: int,
    addend: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """See `fsmn_memory.FsmnMemory`; reads each value from memory once."""
    num_rows, num_columns = values.shape
    output = torch.empty((num_rows, num_columns), dtype=values.dtype, device=values.device)
    grid = (triton.cdiv(num_rows, _BLOCK_ROWS), triton.cdiv(num_columns, _BLOCK_COLUMNS))
    _fsmn_memory_kernel[grid](
        values,
        values.stride(0),
        taps,
        sequence_layout.position,
        sequence_layout.length,
        values if addend is None else addend,
        0 if addend is None else addend.stride(0),
        taps if bias is None else bias,
        output,
        num_rows,
        num_columns,
        left,
        kernel=taps.shape[0],
        has_addend=addend is not None,
        has_bias=bias is not None,
        block_rows=_BLOCK_ROWS,
        block_columns=_BLOCK_COLUMNS,
    )
    return output
