"""Batches of examples, prepared by a helper process while the model trains."""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recipes.demo_packs.examples import Example, ExampleStream
from recipes.demo_packs.features import WIDTH, Matrix, normalize

IGNORE_ID = -1
_CHUNK = 96  # examples sorted by length together, so that little is padding
_QUEUE = 48


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded examples.

    Attributes:
        rows: float32 (batch, num_rows, 560), normalized; padding is zero.
        num_rows: int64 (batch,).
        tokens: int64 (batch, num_tokens), ended with `end_id`, padded with -1.
        num_tokens: int64 (batch,), the end token included.
        frame_tokens: int64 (batch, num_rows), padded with -1.
        weights: float32 (batch, num_rows).
    """

    rows: Matrix
    num_rows: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    num_tokens: npt.NDArray[np.int64]
    frame_tokens: npt.NDArray[np.int64]
    weights: Matrix


def pad_batch(examples: list[Example], cmvn: Matrix, end_id: int) -> Batch:
    """Normalize and pad examples."""
    num_rows = np.array([len(example.rows) for example in examples], np.int64)
    num_tokens = np.array([len(example.tokens) + 1 for example in examples], np.int64)
    size = len(examples)
    rows = np.zeros((size, num_rows.max(), WIDTH), np.float32)
    tokens = np.full((size, num_tokens.max()), IGNORE_ID, np.int64)
    frame_tokens = np.full((size, num_rows.max()), IGNORE_ID, np.int64)
    weights = np.zeros((size, num_rows.max()), np.float32)
    for i, example in enumerate(examples):
        rows[i, : num_rows[i]] = normalize(example.rows, cmvn)
        tokens[i, : num_tokens[i]] = [*example.tokens, end_id]
        frame_tokens[i, : num_rows[i]] = example.frame_tokens
        weights[i, : num_rows[i]] = example.weights
    return Batch(rows, num_rows, tokens, num_tokens, frame_tokens, weights)


def draw_batches(
    stream: ExampleStream, cmvn: Matrix, end_id: int, max_rows: int, seed: int
) -> Iterator[Batch]:
    """Yield batches of at most max_rows rows, padding included, without end."""
    rng = np.random.default_rng(seed)
    while True:
        chunk = sorted((stream.draw() for _ in range(_CHUNK)), key=lambda e: len(e.rows))
        groups: list[list[Example]] = [[]]
        for example in chunk:
            if groups[-1] and len(example.rows) * (len(groups[-1]) + 1) > max_rows:
                groups.append([])
            groups[-1].append(example)
        for index in rng.permutation(len(groups)):
            yield pad_batch(groups[index], cmvn, end_id)


def start_batches(
    token_ids: dict[str, int], cmvn: Matrix, end_id: int, max_rows: int, seed: int
) -> Generator[Batch]:
    """Yield the batches of a seed from a helper process of low priority."""
    context = multiprocessing.get_context("spawn")
    waiting = context.Queue(_QUEUE)
    process = context.Process(
        target=_fill, args=(waiting, token_ids, cmvn, end_id, max_rows, seed), daemon=True
    )
    process.start()
    try:
        while True:
            yield waiting.get(timeout=120)
    finally:
        process.terminate()


def _fill(out, token_ids, cmvn, end_id, max_rows, seed) -> None:  # type: ignore[no-untyped-def]
    os.nice(3)
    parent = multiprocessing.parent_process()
    stream = ExampleStream(token_ids, seed)
    for batch in draw_batches(stream, cmvn, end_id, max_rows, seed):
        while True:
            try:
                out.put(batch, timeout=10)
                break
            except queue.Full:
                # A killed parent leaves its helpers behind, with a full queue.
                if parent is None or not parent.is_alive():
                    return
