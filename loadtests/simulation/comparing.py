"""One trace through a real service and through the simulator."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from loadtests.harness.clips import repeated
from loadtests.serving import own_settings
from loadtests.simulation.agreement import Agreement, Pair, Waits, agreement, joined
from loadtests.simulation.calibration import Speech, calibrate
from loadtests.simulation.service_run import RealRun, run_service
from loadtests.simulation.traffic import LENGTHS_S, Traffic
from serve_app.core.ports import VoiceActivityDetector
from serve_app.core.records import RequestContext
from serve_app.inference.loading import load_vad, segmentation_options
from serve_app.modeltools.random_packs.writing import synthesize
from serve_app.planning.costs import Costs
from serve_app.planning.replicas import Call
from serve_app.planning.results import Percentiles, RunResult
from serve_app.planning.service_config import shape_of
from serve_app.planning.simulation import MachineShape, RunOptions, Simulation
from serve_app.planning.speech import DecodedBlock, MeasuredSpeech, Recording, group_of
from serve_app.settings import Settings
from serve_app.transcript.segmentation import Segmentation

_WORDS_PER_S = 291 / 74.8
_START_S = 6.0
_WARM_UP_S = 5.0
_FRAME_S = 0.06
_PERCENTS = (50, 95)
_TRAFFIC = Traffic()


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


def real_run(seconds: float, num_replicas: int, pack: str | None, seed: int) -> RealRun:
    """Runs the service on this machine.

    Args:
        seconds: length of the trace.
        num_replicas: recognizers.
        pack: of the recognizer; None for one of random weights of the published small
            architecture.
        seed: of the arrivals.

    Raises:
        ParaserveError: the machine is too small, or the service does not start.
        ClientError: it refuses requests.
    """
    with _pack(pack) as found:
        return run_service(_settings(num_replicas, found), _TRAFFIC, seconds, seed)


def agreements(comparisons: Sequence[Comparison]) -> tuple[Agreement, ...]:
    """Compares the waits of all chunks of all traces."""
    pair = joined([each.waits for each in comparisons])
    return tuple(agreement(pair, percent) for percent in _PERCENTS)


@contextmanager
def _pack(given: str | None) -> Iterator[str]:
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pack"
        synthesize("paraformer-small", path, 0)
        yield str(path)


def _settings(num_replicas: int, pack: str) -> Settings:
    return own_settings(
        (
            "cluster.num_cpus=8",
            "audio.urgent_s=0",  # overtaking is not simulated
            "admission.max_running=64",
            "admission.max_waiting=150",
            f"admission.max_bytes={2**30}",
            f"recognizer.pack={pack}",
            f"recognizer.deployment.num_replicas={num_replicas}",
            "recognizer.deployment.num_cpus=0.5",
            "recognizer.deployment.max_ongoing_requests=256",
            "segmenter.deployment.max_ongoing_requests=64",
        )
    )


def compared(real: RealRun, num_replicas: int, seed: int) -> Comparison:
    """Simulates the trace of a real run and sets both side by side."""
    settings = _settings(num_replicas, "paraformer-demo")
    vad = load_vad(settings).engine
    recordings = {length_s: cut(repeated(length_s), vad, settings) for length_s in LENGTHS_S}
    records, trace = real.spent.records, real.trace
    began_s = np.array([record.began_s - real.start_s for record in records])
    for_costs: list[bool] = _TRAFFIC.is_for_costs(began_s).tolist()
    others = [one for one, chosen in zip(records, for_costs, strict=True) if not chosen]
    costs = calibrate(
        real.spent,
        for_costs,
        real.idle,
        Speech(recordings, real.decoding_s, _WORDS_PER_S),
        _START_S,
        "a service on this machine; `python -m loadtests simulation compare`",
    )
    simulation = Simulation(
        trace,
        shape_of(settings),
        costs,
        MeasuredSpeech(recordings),
        RunOptions(seed=seed, machine=_machine(real), warm_up_s=_WARM_UP_S),
    )
    simulated: list[tuple[float, float]] = []

    def note(call: Call, waited_s: float) -> None:
        simulated.append((call.arrived_s, waited_s))

    simulation.watch_items(note)
    result = simulation.result()
    waited = [
        (arrived_s - real.start_s, record.began_s - arrived_s)
        for record in records
        for arrived_s in record.arrived_s
    ]
    latencies_s = [
        latency_s
        for arrival_s, latency_s in zip(real.arrival_s, real.latencies_s, strict=True)
        if arrival_s >= _WARM_UP_S
    ]
    expected_s = sum(costs.recognizer.of(r.frames, len(r.arrived_s)) for r in others)
    return Comparison(
        Pair(_compared_part(waited), _compared_part(simulated)),
        real.spent.intruded,
        Percentiles.of(np.array(latencies_s)),
        costs,
        sum(record.took_s for record in records) / trace.span_s / num_replicas,
        sum(record.took_s for record in others) / expected_s,
        float(np.mean([len(record.arrived_s) for record in records])),
        result,
    )


def cut(file: bytes, vad: VoiceActivityDetector, settings: Settings) -> Recording:
    """Returns what the segmenter makes of a recording, for the simulator."""
    audio = np.frombuffer(file, np.uint8)
    segmentation = Segmentation(audio, vad, segmentation_options(settings))
    blocks: list[DecodedBlock] = []
    before_ms = 0
    for chunks in segmentation.groups(RequestContext("cut")):
        groups = (group_of([chunk.duration_s for chunk in chunks], _FRAME_S),) if chunks else ()
        stretch_s = (segmentation.duration_ms - before_ms) / 1000
        before_ms = segmentation.duration_ms
        if stretch_s or not blocks:
            blocks.append(DecodedBlock(stretch_s, groups))
        else:
            blocks[-1] = replace(blocks[-1], groups=(*blocks[-1].groups, *groups))
    return tuple(blocks)


def _compared_part(pairs: Sequence[tuple[float, float]]) -> Waits:
    arrived_s, waited_s = np.array(pairs).T
    return Waits(arrived_s, waited_s).where(~_TRAFFIC.is_for_costs(arrived_s))


def _machine(real: RealRun) -> MachineShape:
    """Returns the shared cores, less what others and idling replicas use of them."""
    others = real.spent.others_s / real.spent.elapsed_s
    idle = sum(used for name, used in real.idle.items() if name != "Recognizer")
    return MachineShape(max(0.1, real.num_shared - others - idle), recognizers_apart=True)
