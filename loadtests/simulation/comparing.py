"""One trace through a real service and through the simulator."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loadtests.ports import free_port
from loadtests.simulation.agreement import Agreement, Pair, Waits, agreement, joined
from loadtests.simulation.calibration import Speech, calibrate
from loadtests.simulation.keeping import RealRun, keep, kept
from loadtests.simulation.recordings import cut, make_clip
from loadtests.simulation.service_run import RunPlan, run_service
from loadtests.simulation.stopwatch import BatchRecord
from loadtests.simulation.traffic import LENGTHS_S, Traffic
from serve_app.inference.loading import load_vad
from serve_app.modeltools.random_packs.writing import synthesize
from serve_app.planning.costs import Costs
from serve_app.planning.replicas import Call
from serve_app.planning.results import Percentiles, RunResult
from serve_app.planning.service_config import shape_of
from serve_app.planning.simulation import MachineShape, RunOptions, Simulation
from serve_app.planning.speech import MeasuredSpeech
from serve_app.settings import Settings

_WORDS_PER_S = 291 / 74.8
_START_S = 6.0
_WARM_UP_S = 5.0
_PERCENTS = (50, 95)
_TRAFFIC = Traffic()


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """How to compare.

    Attributes:
        seconds: length of a trace.
        num_replicas: recognizers.
        pack: of the recognizer; None for one of random weights of the published small
            architecture.
        seed: of the arrivals.
        keep_in: write what the service did into this file.
    """

    seconds: float = 240.0
    num_replicas: int = 1
    pack: str | None = None
    seed: int = 1
    keep_in: Path | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both runs.

    Attributes:
        waits: of the chunks at the recognizer.
        intruded: part of the recognizers' cores that other programs took.
        latency: of the real run's requests.
        costs: that the simulator was given.
        busy: part of the recognizers' time that they were at work in the real run.
        drift: what the batches of the compared stretches took, over what the costs say.
        items_per_batch: in the real run.
        result: of the simulation.
    """

    waits: Pair
    intruded: float
    latency: Percentiles
    costs: Costs
    busy: float
    drift: float
    items_per_batch: float
    result: RunResult


def compare(options: CompareOptions) -> Comparison:
    """Runs the service on this machine, then simulates the same.

    Raises:
        ParaserveError: the machine is too small, the service does not start, or it
            refuses requests.
    """
    with _pack(options) as pack:
        settings = _settings(options, pack)
        clips = {length_s: make_clip(length_s) for length_s in LENGTHS_S}
        plan = RunPlan(_TRAFFIC, options.seconds, options.seed)
        real = run_service(settings, clips, plan)
    if options.keep_in is not None:
        keep(real, options.keep_in)
    return compared(real, options)


def compare_kept(path: Path, options: CompareOptions) -> Comparison:
    """Simulates the trace of a real run that was written into a file."""
    return compared(kept(path), options)


def agreements(comparisons: Sequence[Comparison]) -> tuple[Agreement, ...]:
    """Compares the waits of all chunks of all traces."""
    pair = joined([each.waits for each in comparisons])
    return tuple(agreement(pair, percent) for percent in _PERCENTS)


@contextmanager
def _pack(options: CompareOptions) -> Iterator[str]:
    if options.pack is not None:
        yield options.pack
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pack"
        synthesize("paraformer-small", path, 0)
        yield str(path)


def _settings(options: CompareOptions, pack: str) -> Settings:
    return Settings.model_validate(
        {
            "profile": "demo",
            "http": {"port": free_port()},
            "cluster": {"num_cpus": 8},
            "audio": {"urgent_s": 0},  # overtaking is not simulated
            "admission": {"max_running": 64, "max_waiting": 150, "max_bytes": 2**30},
            "recognizer": {
                "pack": pack,
                "deployment": {
                    "num_replicas": options.num_replicas,
                    "num_cpus": 0.5,
                    "max_ongoing_requests": 256,
                },
            },
            "segmenter": {"deployment": {"max_ongoing_requests": 64}},
        }
    )


def compared(real: RealRun, options: CompareOptions) -> Comparison:
    """Simulates the trace of a real run and sets both side by side."""
    settings = _settings(options, "paraformer-demo")
    vad = load_vad(settings).engine
    recordings = {length_s: cut(make_clip(length_s), vad, settings) for length_s in LENGTHS_S}
    for_costs = _is_for_costs(real)
    others = [one for one, chosen in zip(real.spent.records, for_costs, strict=True) if not chosen]
    costs = calibrate(
        real.spent,
        for_costs,
        real.idle,
        Speech(recordings, real.decoding_s, _WORDS_PER_S),
        _START_S,
        "a service on this machine; `python -m loadtests simulation compare`",
    )
    simulation = Simulation(
        real.trace,
        shape_of(settings),
        costs,
        MeasuredSpeech(recordings),
        RunOptions(seed=options.seed, machine=_machine(real), warm_up_s=_WARM_UP_S),
    )
    waits = _Noted()
    simulation.watch_items(waits.note)
    result = simulation.result()
    return Comparison(
        Pair(_compared_part(_real_waits(real)), _compared_part(waits.all())),
        real.spent.intruded,
        Percentiles.of(_latencies_s(real)),
        costs,
        _took_s(real.spent.records) / real.trace.span_s / options.num_replicas,
        _took_s(others) / sum(costs.recognizer.of(r.frames, len(r.arrived_s)) for r in others),
        float(np.mean([len(record.arrived_s) for record in real.spent.records])),
        result,
    )


def _is_for_costs(real: RealRun) -> list[bool]:
    began_s = np.array([record.began_s - real.start_s for record in real.spent.records])
    chosen: list[bool] = _TRAFFIC.is_for_costs(began_s).tolist()
    return chosen


def _compared_part(waits: Waits) -> Waits:
    return waits.where(~_TRAFFIC.is_for_costs(waits.arrived_s))


def _took_s(records: Iterable[BatchRecord]) -> float:
    return sum(record.ended_s - record.began_s for record in records)


class _Noted:
    """Waits of the simulated chunks, as they are told."""

    def __init__(self) -> None:
        self._arrived_s: list[float] = []
        self._waited_s: list[float] = []

    def note(self, call: Call, waited_s: float) -> None:
        self._arrived_s.append(call.arrived_s)
        self._waited_s.append(waited_s)

    def all(self) -> Waits:
        return Waits(np.array(self._arrived_s), np.array(self._waited_s))


def _real_waits(real: RealRun) -> Waits:
    pairs = [
        (arrived_s - real.start_s, record.began_s - arrived_s)
        for record in real.spent.records
        for arrived_s in record.arrived_s
    ]
    arrived_s, waited_s = np.array(pairs).T
    return Waits(arrived_s, waited_s)


def _latencies_s(real: RealRun) -> npt.NDArray[np.float64]:
    later = [a for a in real.answers if a.sent_s - real.start_s >= _WARM_UP_S]
    return np.array([answer.latency_s for answer in later])


def _machine(real: RealRun) -> MachineShape:
    """Returns the shared cores, less what others and idling replicas use of them."""
    others = real.spent.others_s / real.spent.elapsed_s
    idle = sum(used for name, used in real.idle.items() if name != "Recognizer")
    return MachineShape(max(0.1, real.num_shared - others - idle), recognizers_apart=True)
