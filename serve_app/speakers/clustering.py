"""Groups the embeddings of a recording by speaker, in bounded time and memory.

Spectral clustering: a window is connected to those most like it, and the gap in the spectrum of
this graph's Laplacian tells the number of groups. Then groups with the same voice are joined,
and those with too little speech given up.

The eigenproblem has at most MAX_ROWS rows. A longer recording is first condensed: blocks of
consecutive windows are agglomerated (average linkage) into micro-clusters of one voice, whose
means take the place of their windows. Time is linear in the length then, and memory that of a
block. Micro-clusters lose little, since within minutes each voice sounds most like itself, and
their means are less noisy than windows.

Source: FunASR, `models/campplus/cluster_backend.py` (the pruned affinity and the eigengap).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.cluster.vq import ClusterError, kmeans2
from scipy.linalg import eigh
from scipy.spatial.distance import pdist

from serve_app.core.speakers import Embeddings

MAX_ROWS = 2_000
"""Rows of the eigenproblem: 25 minutes of speech, half a second of a core, 32 MB a matrix."""

MAX_SPEAKERS = 15
"""The most that are found without a request for more."""

_BLOCK_ROWS = 1_000
_ROWS_PER_BLOCK = 100
"""Micro-clusters of a block: of ten windows each, if all are alike."""

_NEIGHBORS = 0.022
_MIN_NEIGHBORS = 6
"""How many rows a row is connected to: a share of all, and at least that many."""

_NUM_STARTS = 8
_NUM_REFINEMENTS = 10

_SAME_VOICE = 0.7
_CONTENT_WINDOWS = 1.0
"""Two clusters have the same voice if the cosine of their means is at least the first.

Of few windows less is enough, since their means depend on what is said: n / (n + the second) as
much for n windows. Means of halves of a minute of one voice have cosines of 0.88 to 0.97, those
of two people 0.0 to 0.6; parts of a conversation that k-means cut off as small clusters, 0.64.
"""

_MIN_WINDOWS = 5
"""Clusters with fewer are no speaker unless asked for: 2 s of a voice touch four windows."""

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Rows:
    """What is clustered: windows, or micro-clusters of them.

    Attributes:
        means: of the windows of each row, not normalized, shape [rows, values].
        sizes: windows of each row, shape [rows].
        row_of: row of each window, shape [windows].
    """

    means: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.int64]
    row_of: Labels


def cluster(
    embeddings: Embeddings,
    num_speakers: int | None = None,
    min_speakers: int | None = None,
    max_speakers: int | None = None,
) -> Labels:
    """Returns the speaker of each window, from 0 without gaps, in the order of appearance.

    Args:
        embeddings: in order of time.
        num_speakers: exactly that many, as far as there are windows.
        min_speakers: at least that many, likewise.
        max_speakers: at most that many.
    """
    if not len(embeddings):
        return np.zeros(0, np.int64)
    rows = _condensed(embeddings)
    num_rows = len(rows.sizes)
    lowest = min(num_rows, num_speakers or min_speakers or 1)
    highest = min(num_rows, num_speakers or max_speakers or max(MAX_SPEAKERS, lowest))
    labels = _spectral(rows, lowest, highest)
    labels = _joined(rows, labels, lowest)
    labels = _refined(rows, labels)
    labels = _without_small(rows, labels, lowest)
    return numbered(labels[rows.row_of])


def numbered(labels: Labels) -> Labels:
    """Returns labels renumbered from 0 in the order in which they appear."""
    _, firsts, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.empty(len(firsts), np.int64)
    order[np.argsort(firsts)] = np.arange(len(firsts))
    renumbered: Labels = order[inverse]
    return renumbered


def _condensed(embeddings: Embeddings) -> _Rows:
    """Returns the windows, or micro-clusters of them, at most MAX_ROWS."""
    num_windows = len(embeddings)
    means = embeddings.astype(np.float64)
    sizes, row_of = np.ones(num_windows, np.int64), np.arange(num_windows)
    while len(means) > MAX_ROWS:
        num_blocks = -(-len(means) // _BLOCK_ROWS)
        group_of = np.concatenate(
            [
                _micro_clusters(block) + number * _ROWS_PER_BLOCK
                for number, block in enumerate(np.array_split(means, num_blocks))
            ]
        )
        _, group_of = np.unique(group_of, return_inverse=True)
        means, sizes = _pooled(means, sizes, group_of)
        row_of = group_of[row_of]
    return _Rows(means, sizes, row_of)


def _micro_clusters(means: npt.NDArray[np.float64]) -> Labels:
    tree = linkage(pdist(means, "cosine"), "average")
    labels: Labels = fcluster(tree, _ROWS_PER_BLOCK, "maxclust").astype(np.int64) - 1
    return labels


def _pooled(
    means: npt.NDArray[np.float64], sizes: npt.NDArray[np.int64], labels: Labels
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Returns the mean and the windows of each group of rows."""
    num_groups = int(labels.max()) + 1
    pooled_sizes = np.bincount(labels, sizes, num_groups).astype(np.int64)
    sums = np.zeros((num_groups, means.shape[1]))
    np.add.at(sums, labels, means * sizes[:, None])
    return sums / np.maximum(1, pooled_sizes)[:, None], pooled_sizes


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    lengths: npt.NDArray[np.float64] = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-9)


def _spectral(rows: _Rows, lowest: int, highest: int) -> Labels:
    """Returns clusters of the rows; the largest eigengap in the bounds tells how many."""
    num_rows = len(rows.sizes)
    if highest == 1 or num_rows == 1:
        return np.zeros(num_rows, np.int64)
    laplacian = _laplacian(_unit(rows.means))
    last = min(num_rows - 1, highest)
    values, vectors = eigh(
        laplacian, subset_by_index=[0, last], overwrite_a=True, check_finite=False
    )
    gaps = np.diff(values[lowest - 1 :])
    number = lowest + int(np.argmax(gaps)) if len(gaps) else lowest
    return _kmeans(vectors[:, :number], number)


def _laplacian(unit: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the Laplacian of the graph that connects each row with its nearest."""
    num_rows = len(unit)
    affinity = unit @ unit.T
    num_neighbors = min(num_rows, max(_MIN_NEIGHBORS, round(_NEIGHBORS * num_rows)))
    if num_neighbors < num_rows:
        far = np.argpartition(affinity, num_rows - num_neighbors, axis=1)
        np.put_along_axis(affinity, far[:, : num_rows - num_neighbors], 0.0, axis=1)
    affinity = (affinity + affinity.T) / 2
    np.fill_diagonal(affinity, 0.0)
    laplacian = -affinity
    np.fill_diagonal(laplacian, np.abs(affinity).sum(axis=1))
    return laplacian


def _kmeans(points: npt.NDArray[np.float64], number: int) -> Labels:
    """Returns the best of several k-means with fixed seeds; no cluster is empty."""
    best: Labels = np.zeros(len(points), np.int64)
    least = np.inf
    for seed in range(_NUM_STARTS):
        try:
            centers, labels = kmeans2(points, number, minit="++", rng=seed, missing="raise")
        except ClusterError:
            continue
        spread = float(np.square(points - centers[labels]).sum())
        if spread < least:
            best, least = labels.astype(np.int64), spread
    best = numbered(best)
    for missing in range(int(best.max()) + 1, number):
        largest = np.bincount(best).argmax()
        best[np.flatnonzero(best == largest)[-1]] = missing
    return numbered(best)


def _joined(rows: _Rows, labels: Labels, lowest: int) -> Labels:
    """Joins clusters with the same voice, the most alike first."""
    while (number := int(labels.max()) + 1) > lowest:
        means, sizes = _pooled(rows.means, rows.sizes, labels)
        unit = _unit(means)
        smaller = np.minimum(sizes[:, None], sizes[None, :])
        enough = _SAME_VOICE * smaller / (smaller + _CONTENT_WINDOWS)
        excess = np.where(np.tri(number, dtype=bool), -np.inf, unit @ unit.T - enough)
        one, other = np.unravel_index(int(np.argmax(excess)), (number, number))
        if excess[one, other] < 0:
            break
        labels = numbered(np.where(labels == other, one, labels))
    return labels


def _without_small(rows: _Rows, labels: Labels, lowest: int) -> Labels:
    """Gives the rows of clusters with too little speech to the others, the smallest first."""
    while (number := int(labels.max()) + 1) > lowest:
        means, sizes = _pooled(rows.means, rows.sizes, labels)
        smallest = int(np.argmin(sizes))
        if sizes[smallest] >= _MIN_WINDOWS:
            break
        others = np.delete(np.arange(number), smallest)
        mine = np.flatnonzero(labels == smallest)
        nearest = (rows.means[mine] @ _unit(means)[others].T).argmax(axis=1)
        labels[mine] = others[nearest]
        labels = numbered(labels)
    return labels


def _refined(rows: _Rows, labels: Labels) -> Labels:
    """Gives each row to the cluster whose mean is nearest, unless that empties a cluster."""
    for _ in range(_NUM_REFINEMENTS):
        means, _ = _pooled(rows.means, rows.sizes, labels)
        nearest: Labels = (rows.means @ _unit(means).T).argmax(axis=1)
        if len(np.unique(nearest)) <= labels.max() or np.array_equal(nearest, labels):
            break
        labels = nearest
    return labels
