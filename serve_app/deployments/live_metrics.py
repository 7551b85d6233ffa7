"""Sets the metrics of live transcription."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass

from serve_app import metrics
from serve_app.core.records import StageReadiness
from serve_app.deployments.metrics import PackInfo, Sampler
from serve_app.live.records import SessionStatistics


@dataclass(frozen=True, slots=True)
class _Totals:
    """Counts over sessions."""

    done: int = 0
    failed: int = 0
    partials: int = 0
    thinned: int = 0
    retractions: int = 0
    audio_ms: int = 0

    @classmethod
    def of(cls, statistics: SessionStatistics) -> _Totals:
        return cls(
            statistics.num_segments - statistics.num_failed_segments,
            statistics.num_failed_segments,
            statistics.num_partials,
            statistics.num_thinned,
            statistics.num_retractions,
            statistics.received_ms,
        )

    def plus(self, other: _Totals) -> _Totals:
        return _Totals(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class LiveMetrics:
    """Set by a live replica; a `SessionObserver`.

    Args:
        readiness: of its VAD, None without one.
    """

    def __init__(self, readiness: StageReadiness | None) -> None:
        self._pack = PackInfo(readiness)
        self._open = metrics.new_gauge(metrics.LIVE_SESSIONS)
        self._speaking = metrics.new_gauge(metrics.LIVE_SPEAKING)
        self._lag = metrics.new_gauge(metrics.LIVE_LAG)
        self._refusals = metrics.new_counter(metrics.LIVE_REFUSALS)
        self._ended = metrics.new_counter(metrics.LIVE_SESSIONS_ENDED)
        self._segments = metrics.new_counter(metrics.LIVE_SEGMENTS)
        self._partials = metrics.new_counter(metrics.LIVE_PARTIALS)
        self._thinned = metrics.new_counter(metrics.LIVE_THINNED)
        self._retractions = metrics.new_counter(metrics.LIVE_RETRACTIONS)
        self._audio = metrics.new_counter(metrics.LIVE_AUDIO)
        self._first_partial_time = metrics.new_histogram(metrics.LIVE_FIRST_PARTIAL_TIME)
        self._final_time = metrics.new_histogram(metrics.LIVE_FINAL_TIME)
        self._of_ended = _Totals()
        self._reported = _Totals()
        self._sessions: Callable[[], Iterable[SessionStatistics]] = list
        self._each_second: Callable[[], None] = lambda: None
        self._sampler = Sampler(self._sample)

    def watch(
        self,
        sessions: Callable[[], Iterable[SessionStatistics]],
        each_second: Callable[[], None],
    ) -> None:
        """Samples the open sessions from now on.

        Args:
            sessions: returns their statistics.
            each_second: called as often as they are sampled.
        """
        self._sessions = sessions
        self._each_second = each_second
        self.start()

    def start(self) -> None:
        """Starts sampling, if an event loop runs already."""
        self._sampler.start()

    def first_partial(self, seconds: float) -> None:
        self._first_partial_time.observe(seconds)

    def final(self, seconds: float) -> None:
        self._final_time.observe(seconds)

    def refused(self, code: str) -> None:
        """Counts a session that was not opened."""
        self._refusals.inc(tags={"reason": code})

    def ended(self, statistics: SessionStatistics) -> None:
        """Counts what a session that was closed has done."""
        self._ended.inc()
        self._of_ended = self._of_ended.plus(_Totals.of(statistics))

    def _sample(self) -> None:
        self._pack.set()
        sessions = list(self._sessions())
        self._open.set(len(sessions))
        self._speaking.set(sum(one.is_speaking for one in sessions))
        self._lag.set(max((one.waiting_ms for one in sessions), default=0) / 1000)
        totals = self._of_ended
        for one in sessions:
            totals = totals.plus(_Totals.of(one))
        self._count_up(totals)
        self._each_second()

    def _count_up(self, totals: _Totals) -> None:
        before = self._reported
        self._reported = totals
        for counter, increase, tags in (
            (self._segments, totals.done - before.done, {"status": "done"}),
            (self._segments, totals.failed - before.failed, {"status": "failed"}),
            (self._partials, totals.partials - before.partials, {}),
            (self._thinned, totals.thinned - before.thinned, {}),
            (self._retractions, totals.retractions - before.retractions, {}),
            (self._audio, (totals.audio_ms - before.audio_ms) / 1000, {}),
        ):
            if increase > 0:  # Ray's counters do not accept 0
                counter.inc(increase, tags=tags)
