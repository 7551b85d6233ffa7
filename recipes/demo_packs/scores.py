"""Edit distance and the error rates built on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def edit_distance(reference: Sequence[object], hypothesis: Sequence[object]) -> int:
    """Substitutions, deletions and insertions between two sequences."""
    row = list(range(len(hypothesis) + 1))
    for i, wanted in enumerate(reference, 1):
        corner, row[0] = row[0], i
        for j, heard in enumerate(hypothesis, 1):
            best = min(row[j] + 1, row[j - 1] + 1, corner + (wanted != heard))
            corner, row[j] = row[j], best
    return row[-1]


def error_rate(pairs: Iterable[tuple[Sequence[object], Sequence[object]]]) -> float:
    """Edit distance over reference length, summed over all pairs, in percent."""
    errors = length = 0
    for reference, hypothesis in pairs:
        errors += edit_distance(reference, hypothesis)
        length += len(reference)
    return 100.0 * errors / max(1, length)
