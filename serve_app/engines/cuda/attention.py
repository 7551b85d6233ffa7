"""Multi-head attention within each sequence of a packed matrix.

There are three implementations of one signature. `attend_padded` is the reference: it runs on any
device, and fused kernels are compared with it before they are used.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch.nn import functional

from serve_app.engines.cuda.sequence_layout import SequenceLayout, lay_out

_LOG = logging.getLogger(__name__)

Attention: TypeAlias = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, SequenceLayout, SequenceLayout], torch.Tensor
]
"""(query [rows, heads, dim], key, value [key rows, heads, dim], layouts of both) to
[rows, heads * dim]. Queries are unscaled. The values of padding rows are undefined."""

_HEAD_MULTIPLE = 8  # the fused kernels need head sizes that are a multiple of this
_PROBE_LENGTHS = (70, 0, 1, 129, 3, 0, 0)
_PROBE_ROWS = 256
_PROBE_LONGEST = 192
_TOLERANCE = {torch.float32: 2e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def attend_padded(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_layout: SequenceLayout,
    key_layout: SequenceLayout,
) -> torch.Tensor:
    """Reference: attention over a padded copy, with padding masked to a weight of 0."""
    padded_key, mask = _padded(key, key_layout)
    heads = functional.scaled_dot_product_attention(
        _padded(query, query_layout)[0],
        padded_key,
        _padded(value, key_layout)[0],
        attn_mask=mask[:, None, None, :],
    )
    rows = heads.transpose(1, 2)[query_layout.sequence, query_layout.position]
    return rows.reshape(query.shape[0], -1)


def _padded(
    rows: torch.Tensor, sequence_layout: SequenceLayout
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns [sequences, heads, longest, dim] and a mask of the rows that are no padding.

    A sequence is padded with its own last row: a NaN of another sequence would stay NaN even
    with a masked weight of 0.
    """
    offsets = torch.arange(sequence_layout.longest, device=rows.device)[None]
    lengths = sequence_layout.lengths[:, None]
    index = sequence_layout.offsets[:-1, None] + torch.minimum(offsets, (lengths - 1).clamp_min(0))
    gathered = rows[index.clamp_max(sequence_layout.num_rows - 1)]
    return gathered.transpose(1, 2), offsets < lengths


def attend_flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_layout: SequenceLayout,
    key_layout: SequenceLayout,
) -> torch.Tensor:
    """Variable-length flash attention (cu_seqlens); half precision only."""
    from torch.nn.attention.varlen import varlen_attn

    dim = query.shape[2]
    attended = varlen_attn(
        _pad_heads(query),
        _pad_heads(key),
        _pad_heads(value),
        query_layout.offsets,
        key_layout.offsets,
        query_layout.longest,
        key_layout.longest,
        scale=1.0 / math.sqrt(dim),
    )
    if not isinstance(attended, torch.Tensor):
        raise TypeError("varlen_attn returned more than the attended values")
    return attended[:, :, :dim].reshape(query.shape[0], -1)


def attend_efficient(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_layout: SequenceLayout,
    key_layout: SequenceLayout,
) -> torch.Tensor:
    """PyTorch's memory-efficient kernel, which also supports float32 and older devices."""
    dim = query.shape[2]
    attended: torch.Tensor = torch.ops.aten._efficient_attention_forward(
        _pad_heads(query)[None],
        _pad_heads(key)[None],
        _pad_heads(value)[None],
        None,
        query_layout.offsets,
        key_layout.offsets,
        query_layout.longest,
        key_layout.longest,
        0.0,
        0,  # no causal mask
        scale=1.0 / math.sqrt(dim),
    )[0]
    return attended[0, :, :, :dim].reshape(query.shape[0], -1)


def _pad_heads(heads: torch.Tensor) -> torch.Tensor:
    missing = -heads.shape[2] % _HEAD_MULTIPLE
    return functional.pad(heads, (0, missing)) if missing else heads


def choose_attention(
    device: torch.device, dtype: torch.dtype, num_heads: int, head_size: int
) -> Attention:
    """Returns the fastest implementation whose results are accurate on this device.

    Each is compared with the reference on sequences of various lengths, with empty ones and
    padding rows. A kernel that is unavailable or inaccurate here is skipped with a warning.
    """
    if device.type == "cpu":
        return attend_padded
    candidates: list[Attention] = [attend_efficient]
    if dtype in (torch.float16, torch.bfloat16):
        candidates.insert(0, attend_flash)
    for attend in candidates:
        name = getattr(attend, "__name__", repr(attend))
        try:
            error = probe(attend, device, dtype, num_heads, head_size)
        except (RuntimeError, ImportError, AttributeError, TypeError) as problem:
            _LOG.warning("%s does not run on %s in %s: %s", name, device, dtype, problem)
            continue
        if error <= _TOLERANCE[dtype]:
            return attend
        _LOG.warning("%s deviates by %.3g on %s in %s; not used", name, error, device, dtype)
    _LOG.warning(
        "no fused attention on %s in %s: using a padded copy, which is slower", device, dtype
    )
    return attend_padded


@torch.inference_mode()
def probe(
    attend: Attention, device: torch.device, dtype: torch.dtype, num_heads: int, head_size: int
) -> float:
    """Returns the largest difference from the reference in float32, without padding rows."""
    generator = torch.Generator().manual_seed(0)

    def heads() -> torch.Tensor:
        drawn = torch.randn(_PROBE_ROWS, num_heads, head_size, generator=generator)
        # Padding must never leak into sequences, not even NaN.
        drawn[sum(_PROBE_LENGTHS) :] = torch.nan
        return drawn.to(device, dtype)

    keys = lay_out(torch.tensor(_PROBE_LENGTHS, device=device), _PROBE_ROWS, _PROBE_LONGEST)
    fewer = torch.tensor([length // 2 for length in _PROBE_LENGTHS], device=device)
    largest = 0.0
    for queries in (keys, lay_out(fewer, _PROBE_ROWS, _PROBE_LONGEST)):
        query, key, value = heads(), heads(), heads()
        query = torch.nan_to_num(query) if queries is not keys else query
        found = attend(query, key, value, queries, keys)
        expected = attend_padded(query.float(), key.float(), value.float(), queries, keys)
        difference = (found.float() - expected)[queries.filled].abs().max()
        largest = max(largest, math.inf if math.isnan(float(difference)) else float(difference))
    return largest
