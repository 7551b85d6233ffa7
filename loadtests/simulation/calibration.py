"""The costs of a service that runs, from what it spends on some recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from loadtests.simulation.stopwatch import BatchRecord
from serve_app.planning.costs import CallCost, Costs, LineCost, StartCost
from serve_app.planning.speech import Recording


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run cost.

    Attributes:
        cpu_s: CPU seconds of the replicas, by deployment.
        lengths_s: of the recordings that went through.
        records: the recogniser's batches.
    """

    cpu_s: Mapping[str, float]
    lengths_s: Sequence[float]
    records: Sequence[BatchRecord]


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


def handover_s(records: Sequence[BatchRecord]) -> float:
    """Returns the median time until a batch began that could have begun: the model was
    free and a chunk was there."""
    waits_s = []
    ended_s: dict[int, float] = {}
    for record in records:
        due_s = max(ended_s.get(record.replica, 0.0), min(record.arrived_s))
        waits_s.append(max(0.0, record.began_s - due_s))
        ended_s[record.replica] = record.ended_s
    return float(np.median(waits_s)) if waits_s else 0.0


def calibrate(
    spent: Spent,
    recordings: Mapping[float, Recording],
    segmenter_s: float,
    words_per_s: float,
    start_s: float,
    origin: str,
) -> Costs:
    """Divides what the replicas spent among the costs that the simulator knows.

    Everything that a replica's process spends is somebody's cost.

    Args:
        spent: on the recordings.
        recordings: what each consists of.
        segmenter_s: CPU time of decoding and cutting a second of audio.
        words_per_s: in speech.
        start_s: of a replica.
        origin: of the figures.
    """
    records = spent.records
    batch = fit_batches(
        [record.frames for record in records],
        [len(record.arrived_s) for record in records],
        [record.cpu_s for record in records],
    )
    num_calls = sum(
        len(window.groups) for length_s in spent.lengths_s for window in recordings[length_s]
    )
    audio_s = sum(spent.lengths_s)
    speech_s = sum(
        group.audio_s
        for length_s in spent.lengths_s
        for window in recordings[length_s]
        for group in window.groups
    )
    # What is not the models' work is the calls': sending them, waiting, and sorting.
    around_s = spent.cpu_s["Recognizer"] - sum(record.cpu_s for record in records)
    around_s += spent.cpu_s["Segmenter"] - segmenter_s * audio_s
    call_s = max(0.0, around_s) / max(1, num_calls)
    return Costs(
        name="demo",
        origin=origin,
        recognizer=batch,
        segmenter=LineCost(0.0, segmenter_s),
        punctuator=LineCost(0.0, spent.cpu_s["Punctuator"] / (speech_s * words_per_s)),
        request=LineCost(0.0, spent.cpu_s["Ingress"] / audio_s),
        call=CallCost(call_s, 0.0, handover_s(records)),
        start=StartCost(start_s),
        words_per_s=words_per_s,
    )
