"""How many recognizer replicas the queued audio needs.

The target is `ceil(audio / (rtfx * target_drain_s))`: enough replicas to work off the queue
within `target_drain_s`. The decision follows the target slowly, so that a load that comes and
goes does not start and stop replicas with every wave:

- up only when the target has been higher for the whole of `upscale_delay_s`, to the smallest
  target in it; down only to the largest target of the last `downscale_delay_s`;
- at most a step per `step_period_s` in either direction;
- down only as far as the remaining replicas would not be busier than `max_utilization`. A rule
  on the length of the queue alone would stop replicas because they keep it empty.

All of it is made of minima and maxima, so that more load never gives fewer replicas.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, TypedDict

_SLACK = 1e-9  # so that ceil(3.0000000001) is 3
# A utilization below this counts as idle: a decaying throughput never reaches 0 and would
# keep the last replica forever.
_IDLE_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class ScalingLimits:
    """Bounds and delays of the policy.

    Attributes:
        min_replicas: kept when idle; 0 allows scaling to zero.
        max_replicas: upper bound.
        target_drain_s: time in which all queued audio should be recognized.
        fallback_rtfx: seconds of audio that a replica recognizes per second, used until
            it has been measured.
        hysteresis: share by which the load must fall short before a replica goes.
        max_utilization: share of their time that the replicas left by a step down may
            be busy, in (0, 1].
        upscale_delay_s: how long the target must have been higher.
        downscale_delay_s: how long the target must have been lower.
        idle_to_zero_delay_s: how long the deployment must have been idle before the last
            replica stops; counts from the same moment as `downscale_delay_s`.
        upscale_step: replicas added per `step_period_s`, at most.
        downscale_step: replicas removed per `step_period_s`, at most.
        step_period_s: see the steps.
    """

    min_replicas: int
    max_replicas: int
    target_drain_s: float = 30.0
    fallback_rtfx: float = 20.0
    hysteresis: float = 0.2
    max_utilization: float = 0.9
    upscale_delay_s: float = 15.0
    downscale_delay_s: float = 300.0
    idle_to_zero_delay_s: float = 600.0
    upscale_step: int = 4
    downscale_step: int = 1
    step_period_s: float = 15.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_replicas <= self.max_replicas or self.max_replicas < 1:
            raise ValueError("0 <= min_replicas <= max_replicas, max_replicas >= 1")
        if self.target_drain_s <= 0 or self.fallback_rtfx <= 0:
            raise ValueError("target_drain_s and fallback_rtfx must be positive")
        if not 0 < self.max_utilization <= 1 or self.hysteresis < 0:
            raise ValueError("max_utilization must be in (0, 1], hysteresis at least 0")
        if self.upscale_step < 1 or self.downscale_step < 1:
            raise ValueError("steps must be at least 1")
        delays_s = (self.upscale_delay_s, self.downscale_delay_s, self.idle_to_zero_delay_s)
        if min(*delays_s, self.step_period_s) < 0:
            raise ValueError("delays and periods must be at least 0")


@dataclass(frozen=True, slots=True)
class LoadSample:
    """The load at one moment; None for an unknown value.

    An incomplete sample may add replicas for the known load, but never removes one.

    Attributes:
        queued_audio_s: audio in the recognizers' queues.
        running_audio_s: audio in running batches.
        hidden_audio_s: audio that segmenters hold back or are sending, which no
            recognizer has yet.
        rtfx_per_replica: audio seconds that a replica recognizes per second while it
            is busy; not known before the first batch, which forbids nothing.
        num_replicas: replicas asked for so far, those still starting included.
        throughput: audio seconds recognized per second by all replicas lately; not
            known only forgoes the bound by utilization.
        all_reported: False if some replica is missing from the sums.
        starting: whether replicas were asked for and none runs yet: somebody may be
            waiting, so that the time until then does not count as idle.
        in_use: whether there is work that is not worth a replica of its own, but must
            have one: that for which nobody waits, or calls that are not known closer.
        waiting_audio_s: audio of jobs that have not begun, as far as it is worth replicas.
    """

    queued_audio_s: float | None
    running_audio_s: float | None
    hidden_audio_s: float | None
    rtfx_per_replica: float | None
    num_replicas: int
    throughput: float | None = None
    all_reported: bool = True
    starting: bool = False
    in_use: bool = False
    waiting_audio_s: float = 0.0

    @property
    def is_complete(self) -> bool:
        parts_s = (self.queued_audio_s, self.running_audio_s, self.hidden_audio_s)
        return self.all_reported and None not in parts_s

    @property
    def known_audio_s(self) -> float:
        parts_s = (
            self.queued_audio_s,
            self.running_audio_s,
            self.hidden_audio_s,
            self.waiting_audio_s,
        )
        return sum(max(0.0, part_s) for part_s in parts_s if part_s is not None)


class ScalingPolicy:
    """Decides the number of replicas of one deployment.

    Args:
        limits: bounds and delays.
    """

    def __init__(self, limits: ScalingLimits) -> None:
        self._limits = limits
        self._up = _WindowExtreme("min", limits.upscale_delay_s)
        self._down = _WindowExtreme("max", limits.downscale_delay_s)
        self._in_use = _WindowExtreme("max", limits.idle_to_zero_delay_s)
        self._fewest = _WindowExtreme("min", limits.step_period_s)
        self._most = _WindowExtreme("max", limits.step_period_s)
        self._last_now: float | None = None

    @property
    def limits(self) -> ScalingLimits:
        return self._limits

    def wanted(self, sample: LoadSample) -> int:
        """Returns the target for the sample alone, within the bounds."""
        return self._bounded(self._replicas_for(sample, 1.0))

    def decide(self, sample: LoadSample, now: float) -> int:
        """Returns the number of replicas to run.

        Args:
            sample: the load now.
            now: monotonic seconds; a time before that of the last call counts as that.
        """
        now = now if self._last_now is None else max(now, self._last_now)
        current = sample.num_replicas
        if self._last_now is None:
            self._begin(current, now)
        self._last_now = now

        up, down = self._targets(sample)
        needed = sample.in_use or sample.known_audio_s > 0
        idle = sample.is_complete and not sample.starting and not needed
        in_use = 0 if idle else 1
        fewest = self._fewest.push(current, now)
        most = self._most.push(current, now)
        highest = min(self._up.push(up, now), fewest + self._limits.upscale_step)
        lowest = max(
            self._down.push(down, now),
            most - self._limits.downscale_step,
            self._in_use.push(in_use, now),
        )
        decided = max(highest, min(current, lowest))
        if needed:
            # At zero replicas nothing is measured while callers wait: no delay.
            decided = max(decided, 1)
        decided = self._bounded(decided)
        self._fewest.push(decided, now)
        self._most.push(decided, now)
        return decided

    def _begin(self, current: int, now: float) -> None:
        """Lets all delays count from the first sample on."""
        self._up.push(current, now)
        self._down.push(max(current, self._limits.min_replicas), now)
        self._in_use.push(min(current, 1), now)

    def _targets(self, sample: LoadSample) -> tuple[int, int]:
        """Returns the targets for scaling up and for scaling down."""
        up = self.wanted(sample)
        if not sample.is_complete:
            return up, max(up, sample.num_replicas)
        down = self._replicas_for(sample, 1.0 + self._limits.hysteresis)
        if sample.throughput is not None:
            busy = sample.throughput / self._rtfx(sample)
            down = max(down, math.ceil(busy / self._limits.max_utilization - _IDLE_SHARE))
        return up, self._bounded(max(up, down))

    def _replicas_for(self, sample: LoadSample, factor: float) -> int:
        audio_s = sample.known_audio_s
        if audio_s <= 0:
            return 0
        per_replica_s = self._rtfx(sample) * self._limits.target_drain_s
        return max(1, math.ceil(audio_s * factor / per_replica_s - _SLACK))

    def _rtfx(self, sample: LoadSample) -> float:
        measured = sample.rtfx_per_replica
        if measured is None or not math.isfinite(measured) or measured <= 0:
            return self._limits.fallback_rtfx
        return measured

    def _bounded(self, num_replicas: int) -> int:
        return min(max(num_replicas, self._limits.min_replicas), self._limits.max_replicas)


@dataclass(slots=True)
class _Interval:
    value: int
    end: float


class _WindowExtreme:
    """The least or the greatest value that was in force during the last `length_s`.

    A value is in force from its push to the next one. Each costs constant time on
    average, however long the window is.
    """

    def __init__(self, kind: Literal["min", "max"], length_s: float) -> None:
        self._sign = 1 if kind == "min" else -1
        self._length_s = length_s
        self._intervals: deque[_Interval] = deque()

    def push(self, value: int, now: float) -> int:
        """Adds a value and returns the extreme, the value itself included."""
        if self._intervals:
            self._intervals[-1].end = now
        while self._intervals and self._sign * (self._intervals[-1].value - value) >= 0:
            self._intervals.pop()
        self._intervals.append(_Interval(value, math.inf))
        while self._intervals[0].end <= now - self._length_s:
            self._intervals.popleft()
        return self._intervals[0].value


class Backlog:
    """The audio that one segmenter has still to send to the recognizers.

    Audio that is not decoded yet counts by the length that the file's header declares: the
    bound on calls in flight keeps it out of the recognizers' queues, but it needs replicas.
    """

    def __init__(self) -> None:
        self._recordings: set[RecordingBacklog] = set()

    def open(self, weight: float = 1.0) -> RecordingBacklog:
        """Returns the backlog of a new recording, a context manager.

        Args:
            weight: share of its audio that counts; less than 1 if it is worth fewer replicas.
        """
        return RecordingBacklog(self._recordings, weight)

    @property
    def num_recordings(self) -> int:
        return len(self._recordings)

    @property
    def audio_s(self) -> float:
        """Audio seconds still to be recognized, as far as known."""
        return sum(recording.audio_s for recording in self._recordings)


class RecordingBacklog:
    """One recording's part of the backlog."""

    def __init__(self, recordings: set[RecordingBacklog], weight: float = 1.0) -> None:
        self._recordings = recordings
        self._weight = weight
        self._undecoded_s = 0.0
        self._decoded_s = 0.0
        self._speech_s = 0.0
        self._in_flight_s = 0.0

    def __enter__(self) -> Self:
        self._recordings.add(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._recordings.discard(self)

    def decoded(self, decoded_s: float, declared_s: float | None) -> None:
        """Records how much has been decoded, and the declared length if known."""
        self._decoded_s = decoded_s
        self._undecoded_s = max(0.0, declared_s - decoded_s) if declared_s is not None else 0.0

    def sent(self, audio_s: float) -> None:
        """Records a group of chunks sent to the recognizer."""
        self._speech_s += audio_s
        self._in_flight_s += audio_s

    def answered(self, audio_s: float) -> None:
        """Records a group that was answered or given up."""
        self._in_flight_s = max(0.0, self._in_flight_s - audio_s)

    @property
    def audio_s(self) -> float:
        """In flight, and to come: as much of the rest as has been speech so far."""
        share = min(1.0, self._speech_s / self._decoded_s) if self._decoded_s > 0 else 1.0
        return self._weight * (self._in_flight_s + self._undecoded_s * share)


class RecognizerLoad(TypedDict):
    """What a recognizer's `record_autoscaling_stats` returns; `rtfx` is 0 until measured.

    Background work is in `background_audio_s` only.
    """

    queued_audio_s: float
    running_audio_s: float
    rtfx: float
    audio_s_per_s: float
    background_audio_s: float


class SegmenterLoad(TypedDict):
    """What a segmenter's `record_autoscaling_stats` returns."""

    backlog_audio_s: float


class JobRunnerLoad(TypedDict):
    """What a job runner's `record_autoscaling_stats` returns."""

    waiting_audio_s: float


class EwmaRate:
    """Audio seconds per second as an exponentially weighted moving average.

    Args:
        memory_s: time in which the weight of a measurement falls to 1/e.
        now: monotonic seconds.
    """

    def __init__(self, memory_s: float, now: float) -> None:
        self._memory_s = memory_s
        self._since = now
        self._last = now
        self._audio_s = 0.0

    def done(self, audio_s: float, now: float) -> None:
        """Records recognized audio."""
        self._fade(now)
        self._audio_s += audio_s

    def read(self, now: float) -> float:
        """Returns audio seconds per second."""
        self._fade(now)
        # The weights of the time since the start add up to this, not to memory_s.
        age_s = self._memory_s * -math.expm1(-(self._last - self._since) / self._memory_s)
        return self._audio_s / max(age_s, 1.0)

    def _fade(self, now: float) -> None:
        self._audio_s *= math.exp(-max(0.0, now - self._last) / self._memory_s)
        self._last = max(now, self._last)
