"""The costs of a service that runs, from what it spends on some recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np

from loadtests.simulation.stopwatch import BatchRecord
from serve_app.planning.costs import CallCost, Costs, LineCost, StartCost
from serve_app.planning.speech import Recording


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run cost.

    Attributes:
        elapsed_s: by the clock.
        cpu_s: CPU seconds of the replicas, by deployment.
        others_s: CPU seconds of all else on the shared cores.
        intruded: part of the recognizers' cores that other programs took.
        lengths_s: of the recordings that went through.
        records: the recognizer's batches.
    """

    elapsed_s: float
    cpu_s: Mapping[str, float]
    others_s: float
    intruded: float
    lengths_s: tuple[float, ...]
    records: tuple[BatchRecord, ...]


@dataclass(frozen=True, slots=True)
class Speech:
    """What is known of the recordings.

    Attributes:
        recordings: what each consists of, by length.
        decoding_s: CPU time of decoding and cutting a second of them.
        words_per_s: words in a second of speech.
    """

    recordings: Mapping[float, Recording]
    decoding_s: float
    words_per_s: float


def fit_batches(
    frames: Sequence[float], items: Sequence[float], took_s: Sequence[float]
) -> LineCost:
    """Fits `fixed + unit * frames + item * items` by least squares, none below 0.

    Batches count by the inverse of their time, so that relative errors are what is
    made small: the queue of short batches is as real as that of long ones.
    """
    columns = np.stack([np.ones(len(frames)), np.asarray(frames), np.asarray(items)], axis=1)
    target = np.asarray(took_s, np.float64)
    weights = 1.0 / np.maximum(target, 1e-4)
    used = [0, 1, 2]
    solution = np.zeros(3)
    while used:
        found = np.linalg.lstsq(columns[:, used] * weights[:, None], target * weights, rcond=None)
        solution = np.zeros(3)
        solution[used] = found[0]
        if (solution[used] >= 0).all():
            break
        used.remove(used[int(np.argmin(solution[used]))])
    return LineCost(float(solution[0]), float(solution[1]), float(solution[2]))


def handovers_s(records: Sequence[BatchRecord]) -> list[float]:
    """Returns for each batch the time until it began that it could have begun: the model
    was free and a chunk was there."""
    waits_s = []
    ended_s: dict[int, float] = {}
    for record in records:
        due_s = max(ended_s.get(record.replica, 0.0), min(record.arrived_s))
        waits_s.append(max(0.0, record.began_s - due_s))
        ended_s[record.replica] = record.ended_s
    return waits_s


def batch_cost(records: Sequence[BatchRecord]) -> LineCost:
    """Returns what batches took by the clock."""
    return fit_batches(
        [record.frames for record in records],
        [len(record.arrived_s) for record in records],
        [record.ended_s - record.began_s for record in records],
    )


def calibrate(
    spent: Spent,
    is_chosen: Sequence[bool],
    idle: Mapping[str, float],
    speech: Speech,
    start_s: float,
    origin: str,
) -> Costs:
    """Divides what the replicas spent among the costs that the simulator knows.

    Recognizers have cores of their own, so their batches count by the clock; the other
    stages share cores, so they count by CPU time, less what they take when idle.

    Args:
        spent: on recordings.
        is_chosen: of each batch, whether the recognizer is to be measured by it.
        idle: CPU seconds a second while nothing is asked, by deployment.
        speech: what the recordings consist of.
        start_s: of a replica.
        origin: of the figures.
    """
    groups = [
        group
        for length_s in spent.lengths_s
        for window in speech.recordings[length_s]
        for group in window.groups
    ]
    audio_s = sum(spent.lengths_s)
    words = sum(group.audio_s for group in groups) * speech.words_per_s

    def work_s(deployment: str) -> float:
        return max(0.0, spent.cpu_s[deployment] - idle[deployment] * spent.elapsed_s)

    # What a segmenter spends beside decoding is the calls': one half is taken to go into
    # sending them, the other into sorting their answers and passing them on.
    call_s = max(0.0, work_s("Segmenter") - speech.decoding_s * audio_s) / len(groups)
    handover_s = float(np.mean(list(compress(handovers_s(spent.records), is_chosen))))
    return Costs(
        name="measured",
        origin=origin,
        recognizer=batch_cost(list(compress(spent.records, is_chosen))),
        segmenter=LineCost(0.0, speech.decoding_s),
        punctuator=LineCost(0.0, work_s("Punctuator") / words),
        request=LineCost(work_s("Ingress") / len(spent.lengths_s), 0.0),
        call=CallCost(call_s / 2, 0.0, handover_s, call_s / 2),
        start=StartCost(start_s),
        words_per_s=speech.words_per_s,
    )
