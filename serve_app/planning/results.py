"""Results of a simulated run."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serve_app.planning.replicas import Call, Request

LENGTH_CLASSES: tuple[tuple[str, float], ...] = (
    ("under 30 s", 30.0),
    ("30 s to 10 min", 600.0),
    ("10 min to 1 h", 3600.0),
    ("over 1 h", float("inf")),
)
"""Names, and the exclusive upper bound of each in s."""


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of times in s; all 0 if there are none."""

    p50_s: float
    p95_s: float
    p99_s: float
    num: int

    @classmethod
    def of(cls, values: npt.NDArray[np.floating]) -> Percentiles:
        if not len(values):
            return cls(0.0, 0.0, 0.0, 0)
        p50_s, p95_s, p99_s = np.percentile(values, (50, 95, 99))
        return cls(float(p50_s), float(p95_s), float(p99_s), len(values))


@dataclass(frozen=True, slots=True)
class ClassResult:
    """Requests of similar length.

    Attributes:
        name: of the class.
        queue_delay: see `RunResult`.
        latency: from arrival to answer.
    """

    name: str
    queue_delay: Percentiles
    latency: Percentiles


@dataclass(frozen=True, slots=True)
class Timeline:
    """Samples of a run at even intervals; arrays of shape [samples].

    Attributes:
        time_s: time of the sample.
        replicas: running recognizers.
        requested: recognizers that the scaling policy wants.
        backlog_s: audio that is still to be recognized.
        delay_s: longest queue delay of an item since the previous sample.
        open_requests: requests without an answer.
    """

    time_s: npt.NDArray[np.float64]
    replicas: npt.NDArray[np.float64]
    requested: npt.NDArray[np.float64]
    backlog_s: npt.NDArray[np.float64]
    delay_s: npt.NDArray[np.float64]
    open_requests: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RunResult:
    """Results of a run.

    Attributes:
        num_requests: requests that arrived.
        num_answered: requests answered.
        num_refused: requests refused with 429.
        num_expired: requests that missed their deadline.
        num_rejected: requests that never fit this service, such as too large uploads.
        audio_hours: audio of the answered requests.
        item_delay: wait of a batch item, from its arrival at a recognizer.
        queue_delay: of an answered request: its wait for admission and a segmenter,
            plus the longest wait of one of its groups for a batch.
        latency: from arrival to answer.
        classes: the same by length of the recording.
        replica_hours: of recognizers, from the request for each to its end.
        gpu_hours: GPU hours of recognizers, punctuators and speaker embedders.
        peak_replicas: most recognizers at once.
        utilization: fraction of the recognizers' time that their models were busy.
        segmenter_utilization: the same of the segmenters.
        embedder_utilization: the same of the speaker embedders; 0 without any.
        mean_batch_items: mean items in a recognizer batch.
        num_scalings: changes of the number of recognizers.
        num_reversals: changes in the opposite direction of the previous one.
        num_retries: calls repeated because their replica died.
        span_s: simulated time.
        num_events: simulated events.
        elapsed_s: real time of the simulation.
        timeline: samples over the run.
    """

    num_requests: int
    num_answered: int
    num_refused: int
    num_expired: int
    num_rejected: int
    audio_hours: float
    item_delay: Percentiles
    queue_delay: Percentiles
    latency: Percentiles
    classes: tuple[ClassResult, ...]
    replica_hours: float
    gpu_hours: float
    peak_replicas: int
    utilization: float
    segmenter_utilization: float
    embedder_utilization: float
    mean_batch_items: float
    num_scalings: int
    num_reversals: int
    num_retries: int
    span_s: float
    num_events: int
    elapsed_s: float
    timeline: Timeline

    @property
    def refused_share(self) -> float:
        return (self.num_refused + self.num_expired) / max(1, self.num_requests)


class Outcomes:
    """Collects the outcomes of requests and items in compact arrays.

    Args:
        warm_up_s: requests that arrive earlier are left out of the percentiles.
    """

    def __init__(self, warm_up_s: float = 0.0) -> None:
        self._warm_up_s = warm_up_s
        self.num_requests = 0
        self.num_answered = 0
        self.num_refused = 0
        self.num_expired = 0
        self.num_rejected = 0
        self.answered_audio_s = 0.0
        self._item_delays_s = array("f")
        self._audio_s = array("f")
        self._delays_s = array("f")
        self._latencies_s = array("f")
        self._longest_s = 0.0

    def begun(self, call: Call, waited_s: float) -> None:
        """Records that a batch has taken an item."""
        request = call.request
        if request.arrived_s >= self._warm_up_s:
            self._item_delays_s.append(waited_s)
        if waited_s > self._longest_s:
            self._longest_s = waited_s
        waited_s += call.arrived_s - call.sent_s  # the call, and all replicas full
        if waited_s > request.longest_wait_s:
            request.longest_wait_s = waited_s

    def answered(self, request: Request, now: float) -> None:
        self.num_answered += 1
        self.answered_audio_s += request.audio_s
        if request.arrived_s >= self._warm_up_s:
            self._audio_s.append(request.audio_s)
            self._delays_s.append(request.started_s - request.arrived_s + request.longest_wait_s)
            self._latencies_s.append(now - request.arrived_s)

    def refused(self, request: Request, now: float) -> None:
        self.num_refused += 1

    def expired(self, request: Request) -> None:
        self.num_expired += 1

    def rejected(self, request: Request) -> None:
        self.num_rejected += 1

    def take_longest_s(self) -> float:
        """Returns the longest wait since the previous call."""
        longest_s, self._longest_s = self._longest_s, 0.0
        return longest_s

    @property
    def item_delays_s(self) -> npt.NDArray[np.float32]:
        return np.frombuffer(self._item_delays_s, np.float32)

    @property
    def latencies_s(self) -> npt.NDArray[np.float32]:
        return np.frombuffer(self._latencies_s, np.float32)

    @property
    def delays_s(self) -> npt.NDArray[np.float32]:
        return np.frombuffer(self._delays_s, np.float32)

    @property
    def audio_s(self) -> npt.NDArray[np.float32]:
        """Lengths of the answered recordings, in the order of delays and latencies."""
        return np.frombuffer(self._audio_s, np.float32)

    def classes(self) -> tuple[ClassResult, ...]:
        """Returns the results by length, without empty classes."""
        audio_s = self.audio_s
        results = []
        start_s = 0.0
        for name, end_s in LENGTH_CLASSES:
            inside = (audio_s >= start_s) & (audio_s < end_s)
            start_s = end_s
            if inside.any():
                delays, latencies = self.delays_s[inside], self.latencies_s[inside]
                results.append(ClassResult(name, Percentiles.of(delays), Percentiles.of(latencies)))
        return tuple(results)
