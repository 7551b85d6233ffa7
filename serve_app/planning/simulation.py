"""The simulation of a trace."""

from __future__ import annotations

import gc
import random
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from serve_app.planning.costs import Costs
from serve_app.planning.cpu import Clock, Cores, OwnCores, SharedCores
from serve_app.planning.fleet import Fleet
from serve_app.planning.ingress import IngressModel
from serve_app.planning.replicas import Call, ReplicaGroup, Request
from serve_app.planning.results import Outcomes, Percentiles, RunResult, Timeline
from serve_app.planning.segmenting import Segmenting
from serve_app.planning.service_config import ReplicaGroupShape, ServiceShape
from serve_app.planning.speech import Speech
from serve_app.planning.trace import Trace

_NUM_SAMPLES = 1440


@dataclass(frozen=True, slots=True)
class MachineShape:
    """Cores that all processes of the service share.

    Attributes:
        num_cores: of the machine; a fraction if other programs always use a part.
        others: times in s, and the busy threads of other programs from then on.
        recognizers_apart: each recognizer has its own core in addition.
    """

    num_cores: float
    others: tuple[tuple[float, float], ...] = ()
    recognizers_apart: bool = False


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to simulate.

    Attributes:
        seed: of all that is random.
        by_item: treat every chunk as an item, as in the service. Otherwise a group is an
            item and punctuation a fixed delay, which is several times as fast.
        chunks_per_group: scales the limit on items in a batch when groups are items.
        machine: one that all processes share; None if each thread has its own core.
        warm_up_s: requests that arrive earlier are left out of the percentiles.
    """

    seed: int = 0
    by_item: bool = True
    chunks_per_group: float = 1.0
    machine: MachineShape | None = None
    warm_up_s: float = 0.0


class Simulation:
    """One run; `result` may be called once.

    Args:
        trace: the requests.
        shape: of the service.
        costs: of its stages.
        speech: what recordings consist of.
        options: how to simulate.
    """

    def __init__(
        self,
        trace: Trace,
        shape: ServiceShape,
        costs: Costs,
        speech: Speech,
        options: RunOptions | None = None,
    ) -> None:
        options = options or RunOptions()
        self._trace = trace
        self._shape = shape
        self._costs = costs
        self._clock = Clock()
        cores = self._cores(options.machine)
        apart = options.machine is not None and options.machine.recognizers_apart
        self.outcomes = Outcomes(options.warm_up_s)
        self._recognizer = ReplicaGroup(
            self._clock,
            OwnCores(self._clock) if apart else cores,
            shape.recognizer if options.by_item else _limits_in_groups(shape.recognizer, options),
            (costs.recognizer, costs.call),
            unit_s=costs.frame_s,
            by_item=options.by_item,
            call_cores=cores,
            seed=options.seed,
        )
        self._recognizer.on_begin = self.outcomes.begun
        self._embedder = self._speaker_embedder(cores, options)
        self._segmenting = Segmenting(
            self._clock,
            cores,
            costs.segmenter,
            speech,
            self._recognizer,
            embedder=None if self._embedder is None else (self._embedder, costs.frame_s),
            num_segmenters=shape.num_segmenters,
            max_recordings=shape.segmenter_max_recordings,
            max_in_flight=shape.max_in_flight,
            seed=options.seed + 1,
        )
        self._ingress = IngressModel(
            self._clock,
            cores,
            shape,
            costs.request,
            self._segmenting,
            self._punctuator(cores, options) if options.by_item else None,
            costs.words_per_s,
            0.0 if options.by_item or shape.punctuator is None else _last_words_s(costs),
            costs.clustering if shape.embedder is not None else None,
            self.outcomes,
        )
        self._fleet = Fleet(
            self._clock,
            self._recognizer,
            shape,
            costs.start,
            lambda: self._segmenting.backlog_audio_s,
            options.seed + 3,
        )
        self._labels = random.Random(options.seed + 4)  # noqa: S311  # a simulation, not a secret
        self._num_arrived = 0
        self._arrivals = zip(
            trace.arrival_s.tolist(), trace.audio_s.tolist(), trace.key_index.tolist(), strict=True
        )
        self._sample_every_s = max(trace.span_s / _NUM_SAMPLES, 1.0)
        self._samples = array("d")

    def watch_items(self, on_item: Callable[[Call, float], None]) -> None:
        """Calls `on_item` with each item of a new recognizer batch, and its wait in s."""
        begun = self.outcomes.begun

        def both(call: Call, waited_s: float) -> None:
            begun(call, waited_s)
            on_item(call, waited_s)

        self._recognizer.on_begin = both

    def result(self) -> RunResult:
        """Runs until every request has its answer."""
        began = time.perf_counter()
        self._fleet.begin()
        self._ingress.on_all_answered = self._stop_at_end
        self._next_arrival()
        self._sample(None)
        with _no_garbage_collection():
            self._clock.run()
        return self._result(time.perf_counter() - began)

    def _cores(self, machine: MachineShape | None) -> Cores:
        if machine is None:
            return OwnCores(self._clock)
        cores = SharedCores(self._clock, machine.num_cores, self._costs.slowdown)
        cores.follow(machine.others)
        return cores

    def _punctuator(self, cores: Cores, options: RunOptions) -> ReplicaGroup | None:
        shape = self._shape.punctuator
        if shape is None:
            return None
        costs = (self._costs.punctuator, self._costs.call)
        group = ReplicaGroup(self._clock, cores, shape, costs, seed=options.seed + 2)
        for _ in range(shape.num_replicas):
            group.add_replica()
        return group

    def _speaker_embedder(self, cores: Cores, options: RunOptions) -> ReplicaGroup | None:
        shape = self._shape.embedder
        if shape is None:
            return None
        embedder, _ = self._costs.speaker_costs()
        group = ReplicaGroup(
            self._clock,
            cores,
            shape if options.by_item else _limits_in_groups(shape, options),
            (embedder, self._costs.call),
            by_item=options.by_item,
            seed=options.seed + 5,
        )
        for _ in range(shape.num_replicas):
            group.add_replica()
        return group

    def _next_arrival(self) -> None:
        entry = next(self._arrivals, None)
        if entry is None:
            return
        arrival_s, audio_s, key = entry
        request = Request(
            self._num_arrived,
            arrival_s,
            audio_s,
            self._trace.keys[key],
            self._trace.weights[key],
            arrival_s + self._shape.request_timeout_s,
        )
        self._num_arrived += 1
        if self._embedder is not None:
            request.has_labels = self._labels.random() < self._shape.labeled_share
        self._clock.at(arrival_s, self._arrive, request)

    def _arrive(self, request: Request) -> None:
        # Schedule the next arrival first: this one's answer must not look like the end.
        self._next_arrival()
        self._ingress.arrive(request)

    def _stop_at_end(self) -> None:
        if self._num_arrived == len(self._trace) and self._ingress.num_open == 0:
            last_s = float(self._trace.arrival_s[-1])
            if self._clock.now >= last_s:
                self._clock.stop()

    def _sample(self, _: object) -> None:
        self._samples.extend(
            (
                self._clock.now,
                self._fleet.num_working,
                self._fleet.requested,
                self._segmenting.backlog_audio_s,
                self.outcomes.take_longest_s(),
                self._ingress.num_open,
            )
        )
        self._clock.after(self._sample_every_s, self._sample)

    def _result(self, elapsed_s: float) -> RunResult:
        outcomes, span_s, fleet = self.outcomes, self._clock.now, self._fleet
        samples = np.frombuffer(self._samples).reshape(-1, 6).T
        gpu_s = fleet.held_s * self._shape.recognizer.gpu_share
        for group in (self._shape.punctuator, self._shape.embedder):
            if group is not None:
                gpu_s += span_s * group.num_replicas * group.gpu_share
        return RunResult(
            num_requests=len(self._trace),
            num_answered=outcomes.num_answered,
            num_refused=outcomes.num_refused,
            num_expired=outcomes.num_expired,
            num_rejected=outcomes.num_rejected,
            audio_hours=outcomes.answered_audio_s / 3600,
            item_delay=Percentiles.of(outcomes.item_delays_s),
            queue_delay=Percentiles.of(outcomes.delays_s),
            latency=Percentiles.of(outcomes.latencies_s),
            classes=outcomes.classes(),
            replica_hours=fleet.held_s / 3600,
            gpu_hours=gpu_s / 3600,
            peak_replicas=fleet.peak,
            utilization=self._recognizer.busy_s / max(fleet.held_s, 1e-9),
            segmenter_utilization=self._segmenting.busy_s
            / max(span_s * self._shape.num_segmenters, 1e-9),
            embedder_utilization=self._embedder_utilization(span_s),
            mean_batch_items=self._recognizer.num_items / max(1, self._recognizer.num_batches),
            num_scalings=fleet.num_scalings,
            num_reversals=fleet.num_reversals,
            num_retries=self._recognizer.num_retries,
            span_s=span_s,
            num_events=self._clock.num_events,
            elapsed_s=elapsed_s,
            timeline=Timeline(*samples),
        )

    def _embedder_utilization(self, span_s: float) -> float:
        if self._embedder is None:
            return 0.0
        return self._embedder.busy_s / max(span_s * len(self._embedder.replicas), 1e-9)


def simulate(
    trace: Trace,
    shape: ServiceShape,
    costs: Costs,
    speech: Speech,
    options: RunOptions | None = None,
) -> RunResult:
    """Returns the result of a run; the same arguments give the same result."""
    return Simulation(trace, shape, costs, speech, options).result()


def _last_words_s(costs: Costs) -> float:
    """Returns the time that an idle punctuator takes for the last utterance."""
    num_words = 5.0 * costs.words_per_s
    return costs.call.cpu_s + costs.call.delay_s + costs.punctuator.of(num_words)


def _limits_in_groups(shape: ReplicaGroupShape, options: RunOptions) -> ReplicaGroupShape:
    """Limits the groups of a batch so that it holds as many chunks as in the service."""
    max_items = max(1, round(shape.limits.max_items / options.chunks_per_group))
    return replace(shape, limits=replace(shape.limits, max_items=max_items))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Turns the collector off: it would scan millions of live objects, few in cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
