"""A real run in a file, so that it can be simulated again without running it again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from loadtests.simulation.calibration import Spent
from loadtests.simulation.sending import Answer
from loadtests.simulation.stopwatch import BatchRecord
from serve_app.planning.trace import Trace, make_trace


@dataclass(frozen=True, slots=True)
class RealRun:
    """What the real service did with a trace.

    Attributes:
        trace: the requests.
        start_s: when it began, on the monotonic clock.
        answers: to the requests, in their order.
        records: the recogniser's batches.
        cores_left: times since the start, and cores that others left.
        spent: by the replicas.
        calibration: what they spent on other recordings before.
        segmenter_s: CPU time of decoding and cutting a second of audio.
    """

    trace: Trace
    start_s: float
    answers: tuple[Answer, ...]
    records: tuple[BatchRecord, ...]
    cores_left: tuple[tuple[float, float], ...]
    spent: Spent
    calibration: Spent
    segmenter_s: float


def keep(run: RealRun, path: Path) -> None:
    content = {
        "arrival_s": run.trace.arrival_s.tolist(),
        "audio_s": run.trace.audio_s.tolist(),
        "start_s": run.start_s,
        "answers": [asdict(answer) for answer in run.answers],
        "records": [asdict(record) for record in run.records],
        "cores_left": run.cores_left,
        "spent": asdict(run.spent),
        "calibration": asdict(run.calibration),
        "segmenter_s": run.segmenter_s,
    }
    path.write_text(json.dumps(content), encoding="utf-8")


def kept(path: Path) -> RealRun:
    content = json.loads(path.read_text(encoding="utf-8"))
    return RealRun(
        make_trace(np.array(content["arrival_s"]), np.array(content["audio_s"])),
        content["start_s"],
        tuple(Answer(**answer) for answer in content["answers"]),
        _records(content["records"]),
        tuple((time_s, num_cores) for time_s, num_cores in content["cores_left"]),
        _spent(content["spent"]),
        _spent(content["calibration"]),
        content["segmenter_s"],
    )


def _spent(values: dict[str, list[dict[str, object]]]) -> Spent:
    records = _records(values["records"])
    return Spent(**{**values, "records": records})  # type: ignore[arg-type]  # from asdict


def _records(values: list[dict[str, object]]) -> tuple[BatchRecord, ...]:
    return tuple(
        BatchRecord(**{**each, "arrived_s": tuple(each["arrived_s"])})  # type: ignore[arg-type]
        for each in values
    )
