"""Turns from windows: where between two windows the speaker changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from serve_app.core.speakers import SpeakerTurn, SpeakerWindows

CELL_MS = 250
"""Resolution of a change of speakers: a third of the step between two windows."""

_NUM_ROUNDS = 60
_DAMPING = 0.5
_TRUST = 40.0
"""How much an embedding says about its cells, against `_INERTIA`."""
_INERTIA = 3.0
"""How much a cell follows its neighbors.

Both were chosen on real speech (the sample of pyannote.audio, at 25 positions of the grid of
windows), where boundaries halfway between windows confuse 1.8 s of 24 s of speech and these
1.4 s, and on synthetic conversations.
"""

Shares = npt.NDArray[np.float64]
"""Of each speaker, shape [cells, speakers]; rows sum to 1."""


@dataclass(frozen=True, slots=True)
class _Grid:
    """Cells of speech, in order of time.

    Attributes:
        start_ms: shape [cells].
        end_ms: shape [cells].
        follows: whether a cell begins where the one before it ends, shape [cells].
        in_window: the share of a window that each cell has, shape [windows, cells].
    """

    start_ms: npt.NDArray[np.int64]
    end_ms: npt.NDArray[np.int64]
    follows: npt.NDArray[np.bool_]
    in_window: sparse.csr_array


def turns_of(windows: SpeakerWindows, labels: npt.NDArray[np.int64]) -> tuple[SpeakerTurn, ...]:
    """Returns who speaks when, of the windows and the speaker of each.

    A window is longer than some turns, and what it holds of two voices shows in its embedding,
    which then lies between those of the two. So speech is divided into short cells, and the
    speakers of the cells are sought that explain the embeddings best, where neighbors are
    likely to have the same.

    Args:
        windows: in order of time.
        labels: of each window, from 0 without gaps.
    """
    if not len(windows):
        return ()
    grid = _grid(windows)
    shares = _unmixed(grid, windows, labels)
    return _joined(grid, _speakers(shares))


def _speakers(shares: Shares) -> npt.NDArray[np.int64]:
    """Returns the speaker of each cell, so that each speaker has one where there are enough."""
    speakers: npt.NDArray[np.int64] = shares.argmax(axis=1)
    for absent in np.setdiff1d(np.arange(shares.shape[1]), speakers):
        is_spare = np.bincount(speakers, minlength=shares.shape[1])[speakers] > 1
        if is_spare.any():
            speakers[np.argmax(np.where(is_spare, shares[:, absent], -1.0))] = absent
    return speakers


def _grid(windows: SpeakerWindows) -> _Grid:
    """Divides the speech that the windows cover into cells."""
    latest_ms = np.maximum.accumulate(windows.end_ms)
    opens = np.r_[True, windows.start_ms[1:] > latest_ms[:-1]]
    piece_start_ms = windows.start_ms[opens]
    piece_end_ms = latest_ms[np.r_[np.flatnonzero(opens)[1:] - 1, len(windows) - 1]]
    num_cells = np.maximum(1, np.ceil((piece_end_ms - piece_start_ms) / CELL_MS)).astype(np.int64)
    first_cell = np.r_[0, np.cumsum(num_cells)]
    piece_of_cell = np.repeat(np.arange(len(num_cells)), num_cells)
    offset = np.arange(first_cell[-1]) - first_cell[piece_of_cell]
    start_ms = piece_start_ms[piece_of_cell] + offset * CELL_MS
    end_ms = np.minimum(start_ms + CELL_MS, piece_end_ms[piece_of_cell])
    piece_of_window = np.cumsum(opens) - 1
    return _Grid(
        start_ms,
        end_ms,
        offset > 0,
        _coverage(
            windows, start_ms, end_ms, first_cell[piece_of_window], piece_start_ms[piece_of_window]
        ),
    )


def _coverage(
    windows: SpeakerWindows,
    start_ms: npt.NDArray[np.int64],
    end_ms: npt.NDArray[np.int64],
    first_cell: npt.NDArray[np.int64],
    piece_start_ms: npt.NDArray[np.int64],
) -> sparse.csr_array:
    """Returns which share of each window a cell has."""
    first = first_cell + (windows.start_ms - piece_start_ms) // CELL_MS
    span = int((windows.end_ms - windows.start_ms).max()) // CELL_MS + 2
    cells = np.minimum(first[:, None] + np.arange(span), len(start_ms) - 1)
    cells[:, 1:][cells[:, 1:] == cells[:, :-1]] = len(start_ms)
    padded_start_ms, padded_end_ms = np.r_[start_ms, -1], np.r_[end_ms, -1]
    shared_ms = np.minimum(windows.end_ms[:, None], padded_end_ms[cells]) - np.maximum(
        windows.start_ms[:, None], padded_start_ms[cells]
    )
    row, column = np.nonzero(shared_ms > 0)
    lengths_ms = np.maximum(1, windows.end_ms - windows.start_ms)
    weights = shared_ms[row, column] / lengths_ms[row]
    shape = (len(windows), len(start_ms))
    return sparse.csr_array((weights, (row, cells[row, column])), shape=shape)


def _unmixed(grid: _Grid, windows: SpeakerWindows, labels: npt.NDArray[np.int64]) -> Shares:
    """Returns the shares of the speakers in each cell.

    Minimizes sum(|e - F m|^2) over the shares, where e are embeddings, F the shares of the
    speakers in a window and m the speakers' mean embeddings, with a bonus for equal neighbors;
    by damped mean-field rounds.
    """
    num_speakers = int(labels.max()) + 1
    embeddings = windows.embeddings
    members = np.eye(num_speakers, dtype=np.float32)[labels]
    means = (members.T @ embeddings) / np.maximum(1, members.sum(axis=0))[:, None]
    products, likeness = means @ means.T, embeddings @ means.T
    weight = np.asarray(grid.in_window.sum(axis=0)).ravel()
    votes = np.maximum(grid.in_window.T @ members, 0.05 / num_speakers)
    shares: Shares = votes / votes.sum(axis=1, keepdims=True)
    to_previous = grid.follows[:, None]
    to_next = np.r_[grid.follows[1:], False][:, None]
    for _ in range(_NUM_ROUNDS):
        missing = likeness - (grid.in_window @ shares) @ products
        pull = (grid.in_window.T @ missing) / np.maximum(weight, 1e-9)[:, None]
        beside = np.roll(shares, 1, axis=0) * to_previous + np.roll(shares, -1, axis=0) * to_next
        scores = _TRUST * pull + _INERTIA * beside + np.log(np.maximum(shares, 1e-6))
        scores -= scores.max(axis=1, keepdims=True)
        step = np.exp(scores)
        shares = (1 - _DAMPING) * shares + _DAMPING * step / step.sum(axis=1, keepdims=True)
    return shares


def _joined(grid: _Grid, speakers: npt.NDArray[np.int64]) -> tuple[SpeakerTurn, ...]:
    """Returns runs of cells of one speaker as turns."""
    changes = np.r_[True, (speakers[1:] != speakers[:-1]) | ~grid.follows[1:]]
    firsts = np.flatnonzero(changes)
    lasts = np.r_[firsts[1:] - 1, len(speakers) - 1]
    ranges = zip(grid.start_ms[firsts], grid.end_ms[lasts], speakers[firsts], strict=True)
    return tuple(SpeakerTurn(int(start), int(end), int(who)) for start, end, who in ranges)
