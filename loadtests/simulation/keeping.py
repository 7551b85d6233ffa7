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
        spent: on the trace.
        idle: CPU seconds a second of the replicas, by deployment, while nothing is asked.
        decoding_s: CPU time of decoding and cutting a second of audio.
        num_shared: cores of all but the recognizers.
    """

    trace: Trace
    start_s: float
    answers: tuple[Answer, ...]
    spent: Spent
    idle: dict[str, float]
    decoding_s: float
    num_shared: int


def keep(run: RealRun, path: Path) -> None:
    content = {
        "arrival_s": run.trace.arrival_s.tolist(),
        "audio_s": run.trace.audio_s.tolist(),
        "start_s": run.start_s,
        "answers": [asdict(answer) for answer in run.answers],
        "spent": asdict(run.spent),
        "idle": run.idle,
        "decoding_s": run.decoding_s,
        "num_shared": run.num_shared,
    }
    path.write_text(json.dumps(content), encoding="utf-8")


def kept(path: Path) -> RealRun:
    content = json.loads(path.read_text(encoding="utf-8"))
    return RealRun(
        make_trace(np.array(content["arrival_s"]), np.array(content["audio_s"])),
        content["start_s"],
        tuple(Answer(**answer) for answer in content["answers"]),
        _spent(content["spent"]),
        content["idle"],
        content["decoding_s"],
        content["num_shared"],
    )


def _spent(values: dict[str, list[dict[str, object]]]) -> Spent:
    records = tuple(
        BatchRecord(**{**each, "arrived_s": tuple(each["arrived_s"])})  # type: ignore[arg-type]
        for each in values["records"]
    )
    return Spent(**{**values, "records": records})  # type: ignore[arg-type]  # from asdict
