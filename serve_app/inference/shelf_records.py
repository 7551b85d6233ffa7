"""What a shelf of models knows of each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serve_app.inference.batched import BatchedRecognizer


@dataclass(slots=True)
class Shelved:
    """A loaded model.

    Attributes:
        model: the model.
        num_bytes: what it counts in the budget.
        last_use: grows with each use, of whichever model.
        num_calls: that it has.
        leaving: whether it takes no more.
    """

    model: BatchedRecognizer
    num_bytes: int
    last_use: int
    num_calls: int = 0
    leaving: bool = False


@dataclass(slots=True)
class Wish:
    """A model that calls wait for."""

    loading: asyncio.Task[None]
    since_s: float
    num_calls: int = 0
    audio_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ShelfStatistics:
    """What is loaded, and what has happened so far, by model."""

    loaded: tuple[str, ...]
    loaded_bytes: int
    num_loads: Mapping[str, int]
    num_evictions: Mapping[str, int]
