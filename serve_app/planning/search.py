"""The search for the number of replicas that meets a goal."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from serve_app.core.errors import ConfigurationError
from serve_app.core.speakers import STEP_MS
from serve_app.planning.costs import Costs
from serve_app.planning.results import Percentiles, RunResult
from serve_app.planning.service_config import ReplicaGroupShape, ServiceShape
from serve_app.planning.simulation import RunOptions, simulate
from serve_app.planning.speech import Speech
from serve_app.planning.trace import Trace
from serve_app.scheduling.autoscaling import ScalingLimits

Measure = Literal["queue", "latency"]
Mode = Literal["fixed", "scaled"]

_MAX_REPLICAS = 4096
_SEGMENTER_LOAD = 0.6
_EMBEDDER_LOAD = 0.6
_GROUP_WINDOWS = 30
"""Windows in a batch of the speaker embedder: those of a group of chunks, at least."""
_OPEN_S = 20.0
"""Time that a request may hold an admission slot, for the number of ingresses."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a plan has to meet.

    Attributes:
        p95_s: 95 % of the answered requests wait at most this long.
        measure: "queue" for time in queues, "latency" for arrival to answer.
        max_refused_share: fraction of requests that may be refused or expire.
    """

    p95_s: float
    measure: Measure = "queue"
    max_refused_share: float = 0.001

    def measured(self, result: RunResult) -> Percentiles:
        return result.queue_delay if self.measure == "queue" else result.latency

    def is_met(self, result: RunResult) -> bool:
        waits = self.measured(result)
        return (
            waits.num > 0
            and waits.p95_s <= self.p95_s
            and result.refused_share <= self.max_refused_share
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """One size of the service and its result.

    Attributes:
        mode: a fixed number of recognizers, or autoscaling.
        min_replicas: least recognizers.
        max_replicas: most recognizers.
        whole: the whole trace was simulated, not only its busiest period.
        met: the goal was met.
        result: of the run.
    """

    mode: Mode
    min_replicas: int
    max_replicas: int
    whole: bool
    met: bool
    result: RunResult


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer.

    Attributes:
        trials: all trials, in order.
        fixed: the smallest fixed size that meets the goal.
        scaled: the smallest with autoscaling; None if none does or none was requested.
    """

    trials: tuple[Trial, ...]
    fixed: Trial
    scaled: Trial | None


class Planner:
    """Searches sizes of the recognizer.

    Args:
        trace: the requests.
        shape: of the service; the number of recognizers is searched for.
        costs: of its stages.
        speech: returns the source of recordings, an equal one on each call.
        options: how to simulate.
        goal: what to meet.
        on_trial: called with each trial.
    """

    def __init__(
        self,
        trace: Trace,
        shape: ServiceShape,
        costs: Costs,
        speech: Callable[[], Speech],
        options: RunOptions,
        goal: Goal,
        on_trial: Callable[[Trial], None] = lambda trial: None,
    ) -> None:
        self._trace = trace
        self._busiest = trace
        self._shape = shape
        self._costs = costs
        self._speech = speech
        self._options = options
        self._goal = goal
        self._on_trial = on_trial
        self._trials: list[Trial] = []

    def search_in(self, stretch_s: float) -> None:
        """Tries sizes on the busiest period only; the best are confirmed on the whole trace."""
        self._busiest = self._trace.between(*self._trace.busiest(stretch_s))

    def plan(self, scaling: ScalingLimits | None) -> Plan:
        """Returns the smallest sizes that meet the goal.

        Args:
            scaling: policy whose bounds are searched for; None to plan a fixed size only.

        Raises:
            ConfigurationError: no size meets the goal.
        """
        smallest = self._smallest(self._fixed, self._first_guess())
        fixed = self._confirmed("fixed", self._fixed, smallest)
        scaled = None
        if scaling is not None:
            # A quarter more than the fixed size makes up for start-up times.
            most = math.ceil(fixed.max_replicas * 1.25) + 1

            def with_least(least: int, trace: Trace) -> Trial:
                return self._scaled(scaling, least, most, trace)

            least = self._bisect(with_least, max(0, scaling.min_replicas) - 1, fixed.max_replicas)
            scaled = self._confirmed("scaled", with_least, least, fixed.max_replicas)
        return Plan(tuple(self._trials), fixed, scaled if scaled and scaled.met else None)

    def _first_guess(self) -> int:
        trace = self._busiest
        load = float(trace.audio_s.sum()) / max(trace.span_s, 1.0) / self._costs.recognizer_rtfx
        return max(1, math.ceil(load))

    def _smallest(self, run: Callable[[int, Trace], Trial], guess: int) -> int:
        """Returns the smallest size that meets the goal, by doubling, then bisection."""
        failed, size = 0, guess
        while not run(size, self._busiest).met:
            failed, size = size, size * 2
            if size > _MAX_REPLICAS:
                raise ConfigurationError(self._unreachable_message())
        return self._bisect(run, failed, size)

    def _unreachable_message(self) -> str:
        last = self._trials[-1]
        goal = self._goal
        return (
            f"no number of recognizers meets a p95 of {goal.p95_s:g} s: with "
            f"{last.max_replicas} it is {goal.measured(last.result).p95_s:.2f} s, and "
            f"{last.result.refused_share:.2%} are refused; the segmenters "
            f"({self._shape.num_segmenters}, {last.result.segmenter_utilization:.0%} busy), "
            f"{self._embedders_message(last)}or the "
            f"ingresses ({self._shape.num_ingresses}) are the bottleneck, or the goal cannot be met"
        )

    def _embedders_message(self, last: Trial) -> str:
        if self._shape.embedder is None:
            return ""
        busy = f"{last.result.embedder_utilization:.0%} busy"
        return f"the speaker embedders ({self._shape.num_embedders}, {busy}) "

    def _bisect(self, run: Callable[[int, Trace], Trial], failed: int, met: int) -> int:
        while met - failed > 1:
            middle = (failed + met) // 2
            if run(middle, self._busiest).met:
                met = middle
            else:
                failed = middle
        return met

    def _confirmed(
        self,
        mode: Mode,
        run: Callable[[int, Trace], Trial],
        size: int,
        largest: int = _MAX_REPLICAS,
    ) -> Trial:
        """Returns a trial on the whole trace, with a larger size if necessary."""
        trial = self._earlier_trial(mode, size) or run(size, self._trace)
        while not trial.met and trial.min_replicas < largest:
            size += max(1, size // 16)
            size = min(size, largest)
            trial = self._earlier_trial(mode, size) or run(size, self._trace)
        return trial

    def _earlier_trial(self, mode: Mode, size: int) -> Trial | None:
        for trial in self._trials:
            if trial.whole and (trial.mode, trial.min_replicas) == (mode, size):
                return trial
        return None

    def _fixed(self, size: int, trace: Trace) -> Trial:
        return self._try("fixed", size, size, self._shape.with_recognizers(size), trace)

    def _scaled(self, scaling: ScalingLimits, least: int, most: int, trace: Trace) -> Trial:
        limits = replace(scaling, min_replicas=least, max_replicas=most)
        return self._try("scaled", least, most, self._shape.with_scaling(limits), trace)

    def _try(
        self,
        mode: Mode,
        least: int,
        most: int,
        shape: ServiceShape,
        trace: Trace,
    ) -> Trial:
        result = simulate(trace, shape, self._costs, self._speech(), self._options)
        whole = trace is self._trace
        trial = Trial(mode, least, most, whole, self._goal.is_met(result), result)
        self._trials.append(trial)
        self._on_trial(trial)
        return trial


def sized_for(trace: Trace, shape: ServiceShape, costs: Costs) -> ServiceShape:
    """Returns the service with enough of the other replicas to not limit recognizers.

    At least as many as it has: segmenters and speaker embedders for the busiest five minutes at
    60 % load, and ingresses with slots for the requests of 20 s of these.

    Raises:
        CostsError: there are no costs for its stage `speakers`.
    """
    stretch_s = min(300.0, max(trace.span_s, 1.0))
    busiest = trace.between(*trace.busiest(stretch_s))
    audio_per_s = float(busiest.audio_s.sum()) / stretch_s
    work_s = costs.segmenter.unit_s + costs.segmenter.fixed_s / 20.0
    segmenters = math.ceil(audio_per_s * work_s / _SEGMENTER_LOAD)
    per_second = len(busiest) / stretch_s
    slots = shape.admission.max_running or 1_000_000
    ingresses = math.ceil(per_second * _OPEN_S / slots)
    # The average over five minutes hides that a long recording keeps one segmenter busy.
    longest = float(np.max(trace.audio_s)) if len(trace) else 0.0
    return replace(
        shape,
        num_segmenters=max(shape.num_segmenters, segmenters + (longest > 600)),
        num_ingresses=max(shape.num_ingresses, ingresses + 1),
        embedder=_embedder_for(audio_per_s, shape, costs),
    )


def _embedder_for(
    audio_per_s: float, shape: ServiceShape, costs: Costs
) -> ReplicaGroupShape | None:
    """Returns the speaker embedder with enough replicas for this much audio a second."""
    if shape.embedder is None:
        return None
    embedder, _ = costs.speaker_costs()
    work_s = embedder.unit_s + embedder.fixed_s / _GROUP_WINDOWS
    windows_per_s = audio_per_s * shape.labeled_share * 1000 / STEP_MS
    needed = math.ceil(windows_per_s * work_s / _EMBEDDER_LOAD)
    return replace(shape.embedder, num_replicas=max(shape.embedder.num_replicas, needed))
