"""Turns from windows: where between two windows the speaker changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from serve_app.core.speakers import Ranges, SpeakerTurn, SpeakerWindows

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
        tied: how much a cell follows the one before it: 0 where it does not, or only after a
            pause, 1 without a pause between their middles, shape [cells].
        in_window: the share of a window that each cell has, shape [windows, cells].
    """

    start_ms: npt.NDArray[np.int64]
    end_ms: npt.NDArray[np.int64]
    follows: npt.NDArray[np.bool_]
    tied: npt.NDArray[np.float64]
    in_window: sparse.csr_array


def turns_of(windows: SpeakerWindows, labels: npt.NDArray[np.int64]) -> tuple[SpeakerTurn, ...]:
    """Returns who speaks when, of the windows and the speaker of each.

    A window is longer than some turns, and what it holds of two voices shows in its embedding,
    which then lies between those of the two. So speech is divided into short cells, and the
    speakers of the cells are sought that explain the embeddings best, where neighbors are
    likely to have the same, unless there is a pause between them. Pauses belong to nobody.

    Args:
        windows: in order of time.
        labels: of each window, from 0 without gaps.
    """
    if not len(windows):
        return ()
    grid = _grid(windows)
    shares = _unmixed(grid, windows, labels)
    return _without_pauses(_joined(grid, _speakers(shares)), windows.pauses_ms)


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
    coverage = _coverage(
        windows, start_ms, end_ms, first_cell[piece_of_window], piece_start_ms[piece_of_window]
    )
    follows = offset > 0
    return _Grid(
        start_ms, end_ms, follows, _ties(start_ms, end_ms, follows, windows.pauses_ms), coverage
    )


def _ties(
    start_ms: npt.NDArray[np.int64],
    end_ms: npt.NDArray[np.int64],
    follows: npt.NDArray[np.bool_],
    pauses_ms: Ranges,
) -> npt.NDArray[np.float64]:
    """Returns `_Grid.tied`."""
    middle_ms = (start_ms + end_ms) / 2
    quiet_ms = np.diff(_paused_before(pauses_ms, middle_ms), prepend=0.0)
    apart_ms = np.diff(middle_ms, prepend=middle_ms[0] - 1)
    return np.where(follows, 1 - quiet_ms / np.maximum(apart_ms, 1), 0.0)


def _paused_before(pauses_ms: Ranges, time_ms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns how much of the time before each of the times is pauses, in ms."""
    if not len(pauses_ms):
        return np.zeros(len(time_ms))
    total = np.cumsum(pauses_ms[:, 1] - pauses_ms[:, 0])
    before = np.stack([np.r_[0, total[:-1]], total], axis=1)
    paused_ms: npt.NDArray[np.float64] = np.interp(time_ms, pauses_ms.ravel(), before.ravel())
    return paused_ms


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
    to_previous = grid.tied[:, None]
    to_next = np.r_[grid.tied[1:], 0.0][:, None]
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


def _without_pauses(turns: Sequence[SpeakerTurn], pauses_ms: Ranges) -> tuple[SpeakerTurn, ...]:
    """Returns the turns divided at the pauses in them; each speaker keeps one at least."""
    found: list[SpeakerTurn] = []
    for turn in turns:
        first = int(np.searchsorted(pauses_ms[:, 1], turn.start_ms, "right"))
        last = int(np.searchsorted(pauses_ms[:, 0], turn.end_ms, "left"))
        starts = [turn.start_ms, *pauses_ms[first:last, 1].tolist()]
        ends = [*pauses_ms[first:last, 0].tolist(), turn.end_ms]
        found += [
            SpeakerTurn(start, end, turn.speaker)
            for start, end in zip(starts, ends, strict=True)
            if start < end
        ]
    silent = {turn.speaker for turn in turns} - {turn.speaker for turn in found}
    found += [turn for turn in turns if turn.speaker in silent]
    return tuple(sorted(found, key=lambda turn: turn.start_ms))
