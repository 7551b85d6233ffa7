"""Who spoke when: from the embeddings of a recording's windows to turns with labels.

What imports scipy is imported inside functions: processes that only hand tasks on do without.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serve_app.core.records import RequestContext
from serve_app.core.speakers import (
    Diarization,
    Embeddings,
    SpeakerOptions,
    SpeakerTurn,
    SpeakerWindows,
)

_KNOWN_VOICE = 0.55
"""Least cosine of a reference recording and a speaker that are the same person.

In synthetic conversations, of 47 speakers each was found by 3 s of the same voice without noise
or room (least cosine 0.58), and 0.4 % of other voices passed (1.7 % at 0.5).
"""


@dataclass(frozen=True, slots=True)
class DiarizationTask:
    """A recording whose speakers are to be told apart.

    Attributes:
        context: the request that it belongs to.
        windows: of all its speech.
        options: of the request.
    """

    context: RequestContext
    windows: SpeakerWindows
    options: SpeakerOptions


def diarize(
    windows: SpeakerWindows, options: SpeakerOptions, known: Embeddings | None = None
) -> Diarization:
    """Returns the turns of the speakers.

    Of two who speak at once, the louder is found. Speakers are labeled "A", "B" ... by their
    first turns, or by the names of known speakers; each name goes to one speaker at most.

    Args:
        windows: in order of time.
        options: how many speakers there are, and the names of known ones.
        known: an embedding for each of `options.known`.
    """
    from serve_app.speakers.clustering import cluster
    from serve_app.speakers.turns import turns_of

    labels = cluster(
        windows.embeddings, options.num_speakers, options.min_speakers, options.max_speakers
    )
    turns = turns_of(windows, labels)
    order = list(dict.fromkeys(turn.speaker for turn in turns))
    number = {cluster_id: index for index, cluster_id in enumerate(order)}
    named = _named(_voices(windows.embeddings, labels), options, known)
    letters = _letters({speaker.name for speaker in options.known})
    return Diarization(
        tuple(SpeakerTurn(one.start_ms, one.end_ms, number[one.speaker]) for one in turns),
        tuple(named.get(cluster_id) or next(letters) for cluster_id in order),
    )


def _voices(embeddings: Embeddings, labels: npt.NDArray[np.int64]) -> Embeddings:
    """Returns the mean embedding of each speaker, normalized."""
    members = np.eye(int(labels.max(initial=-1)) + 1, dtype=np.float32)[labels]
    sums = members.T @ embeddings
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    voices: Embeddings = (sums / np.maximum(lengths, 1e-9)).astype(np.float32)
    return voices


def _named(voices: Embeddings, options: SpeakerOptions, known: Embeddings | None) -> dict[int, str]:
    """Returns the names of the speakers that are known, by the assignment most alike in all."""
    if known is None or not len(known) or not len(voices):
        return {}
    from scipy.optimize import linear_sum_assignment

    likeness = voices @ known.T
    pairs = zip(
        *linear_sum_assignment(np.maximum(likeness, _KNOWN_VOICE), maximize=True), strict=True
    )
    return {
        int(speaker): options.known[reference].name
        for speaker, reference in pairs
        if likeness[speaker, reference] >= _KNOWN_VOICE
    }


def _letters(taken: Collection[str]) -> Iterator[str]:
    """Yields "A" to "Z", "AA", "AB" ..., without names that are taken."""
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_uppercase, repeat=length):
            if (label := "".join(letters)) not in taken:
                yield label
