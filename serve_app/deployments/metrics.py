"""Sets the metrics of `serve_app.metrics`, one helper per stage."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter as CountOf
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

from ray.serve.metrics import Counter

from serve_app import metrics
from serve_app.api.request_log import RequestLog
from serve_app.core.errors import DeadlineExceeded
from serve_app.core.records import RequestContext, Stage, StageReadiness, UtteranceStatus
from serve_app.engines.gpu_memory import gpu_memory
from serve_app.inference.model_cache import ModelCacheStatistics
from serve_app.scheduling.admission import AdmissionStatistics
from serve_app.scheduling.autoscaling import Backlog
from serve_app.scheduling.batch_state import BatcherStatistics

_SAMPLE_PERIOD_S = 1.0
_OK = 200
_TOO_MANY_REQUESTS = 429
_DEADLINE_CODE = DeadlineExceeded.code


class IngressMetrics:
    """Set by an ingress replica; a `RequestObserver`."""

    def __init__(self) -> None:
        self._sampler: Sampler | None = None
        self._requests = metrics.new_counter(metrics.REQUESTS)
        self._seconds = metrics.new_histogram(metrics.REQUEST_TIME)
        self._sheds = metrics.new_counter(metrics.SHEDS)
        self._deadline_misses = metrics.new_counter(metrics.DEADLINE_MISSES)
        self._partials = metrics.new_counter(metrics.PARTIALS)
        self._unlabelled = metrics.new_counter(metrics.UNLABELLED)
        self._accepted = metrics.new_counter(metrics.AUDIO_ACCEPTED)
        self._done = metrics.new_counter(metrics.AUDIO_DONE)
        self._upload_bytes = metrics.new_gauge(metrics.UPLOAD_BYTES)
        self._audio_in_flight = metrics.new_gauge(metrics.AUDIO_IN_FLIGHT)
        self._running = metrics.new_gauge(metrics.REQUESTS_RUNNING)
        self._waiting = metrics.new_gauge(metrics.REQUESTS_WAITING)
        self._uploading = metrics.new_gauge(metrics.REQUESTS_UPLOADING)
        self._oldest_wait = metrics.new_gauge(metrics.LINE_WAIT)
        self._keys_stale = metrics.new_gauge(metrics.KEYS_STALE)
        self._limit = metrics.new_gauge(metrics.ADMISSION_LIMIT)
        self._key_requests = metrics.new_counter(metrics.KEY_REQUESTS)
        self._key_audio = metrics.new_counter(metrics.KEY_AUDIO)
        _retries()  # its series begin with the replica, not with the first retry

    def watch(
        self, line: Callable[[], AdmissionStatistics], keys_stale_s: Callable[[], float]
    ) -> None:
        self._sampler = Sampler(lambda: self._sample(line(), keys_stale_s()))
        self._sampler.start()

    def ended(self, log: RequestLog) -> None:
        if self._sampler is not None:
            self._sampler.start()
        status = str(log.status)
        code = log.code or "none"
        self._requests.inc(tags={"status": status, "code": code})
        self._seconds.observe(log.duration_s, tags={"status": status})
        self._key_requests.inc(tags={"key": log.key, "status": status})
        if log.status == _TOO_MANY_REQUESTS:
            self._sheds.inc(tags={"reason": code})
        if code == _DEADLINE_CODE:
            self._deadline_misses.inc()
        if log.is_partial:
            self._partials.inc()
        if log.lacks_labels:
            self._unlabelled.inc()
        if log.audio_s > 0:
            self._accepted.inc(log.recognized_audio_s)
            if log.status == _OK and log.code is None:
                self._done.inc(log.recognized_audio_s)
                self._key_audio.inc(log.recognized_audio_s, tags={"key": log.key})

    def _sample(self, line: AdmissionStatistics, keys_stale_s: float) -> None:
        self._keys_stale.set(keys_stale_s)
        self._running.set(line.num_running)
        self._waiting.set(line.num_waiting)
        self._uploading.set(line.num_uploading)
        self._upload_bytes.set(line.in_flight_bytes)
        self._audio_in_flight.set(line.in_flight_audio_s)
        self._oldest_wait.set(line.oldest_wait_s)
        limits = {
            "running": line.limits.max_running,
            "waiting": line.limits.max_waiting,
            "bytes": line.limits.max_bytes,
            "audio_s": line.limits.max_audio_s,
        }
        for name, limit in limits.items():
            if limit is not None:
                self._limit.set(limit, tags={"limit": name})


class SegmenterMetrics:
    """Set by a segmenter replica.

    Args:
        backlog: of the replica.
        readiness: of its VAD, None without one.
    """

    def __init__(self, backlog: Backlog, readiness: StageReadiness | None) -> None:
        self._backlog = backlog
        self._pack = PackInfo(readiness)
        self._recordings = metrics.new_gauge(metrics.RECORDINGS)
        self._backlog_audio = metrics.new_gauge(metrics.BACKLOG)
        self._chunks = metrics.new_counter(metrics.CHUNKS)
        self._work = metrics.new_histogram(metrics.WORK_TIME)
        _retries()
        self._sampler = Sampler(self._sample)
        self.start()

    def start(self) -> None:
        """Starts sampling the gauges, if an event loop runs already."""
        self._sampler.start()

    def decoded(self, seconds: float) -> None:
        """Records the time that decoding and cutting a recording took."""
        self._work.observe(seconds, tags={"stage": "vad"})

    def chunks(self, statuses: Iterable[UtteranceStatus]) -> None:
        for status, num in CountOf(statuses).items():
            self._chunks.inc(num, tags={"status": status})

    def _sample(self) -> None:
        self._recordings.set(self._backlog.num_recordings)
        self._backlog_audio.set(self._backlog.audio_s)
        self._pack.set()


class ModelMetrics:
    """Set by a replica that batches for a model.

    Args:
        readiness: of the model.
        statistics: reads the batcher's.
        gpu_bytes: reads the GPU memory that is allocated and reserved; None on a CPU.
    """

    def __init__(
        self,
        readiness: StageReadiness,
        statistics: Callable[[], BatcherStatistics],
        gpu_bytes: Callable[[], tuple[int, int] | None],
    ) -> None:
        self._stage = readiness.stage
        self._tags: dict[str, str] = {"stage": readiness.stage}
        self._statistics = statistics
        self._gpu_bytes = gpu_bytes
        self._pack = PackInfo(readiness)
        self._items = metrics.new_gauge(metrics.QUEUED_ITEMS)
        self._oldest_wait = metrics.new_gauge(metrics.OLDEST_WAIT)
        self._batches = metrics.new_counter(metrics.BATCHES)
        self._batch_items = metrics.new_counter(metrics.BATCH_ITEMS)
        self._padding = metrics.new_gauge(metrics.PADDING)
        self._expired = metrics.new_counter(metrics.EXPIRED)
        self._queue_time = metrics.new_histogram(metrics.QUEUE_TIME)
        self._work_time = metrics.new_histogram(metrics.WORK_TIME)
        self._queued_audio = metrics.new_gauge(metrics.QUEUED_AUDIO)
        self._running_audio = metrics.new_gauge(metrics.RUNNING_AUDIO)
        self._rtfx = metrics.new_gauge(metrics.RTFX)
        self._gpu_memory = metrics.new_gauge(metrics.GPU_MEMORY)
        self._num_expired = 0
        self._sampler = Sampler(self._sample)
        self.start()

    def start(self) -> None:
        """Starts sampling the gauges, if an event loop runs already."""
        self._sampler.start()

    def batch_ended(self, waits_s: Sequence[float], took_s: float) -> None:
        """Records the queue time of each item of a batch and the batch's run time."""
        self._batches.inc(tags=self._tags)
        if waits_s:  # Ray's counters take no 0
            self._batch_items.inc(len(waits_s), tags=self._tags)
        self._work_time.observe(took_s, tags=self._tags)
        for wait_s in waits_s:
            self._queue_time.observe(wait_s, tags=self._tags)

    def _sample(self) -> None:
        self._pack.set()
        statistics = self._statistics()
        self._items.set(statistics.num_waiting, tags=self._tags)
        self._oldest_wait.set(statistics.oldest_wait_s, tags=self._tags)
        self._padding.set(statistics.padding_ratio, tags=self._tags)
        if statistics.num_expired > self._num_expired:  # Ray's counters do not accept 0
            self._expired.inc(statistics.num_expired - self._num_expired, tags=self._tags)
            self._num_expired = statistics.num_expired
        if self._stage == "asr":
            self._queued_audio.set(statistics.queued_audio_s)
            self._running_audio.set(statistics.running_audio_s)
            self._rtfx.set(statistics.rtfx)
        if (memory := self._gpu_bytes()) is not None:
            for kind, num_bytes in zip(("allocated", "reserved"), memory, strict=True):
                self._gpu_memory.set(num_bytes, tags=self._tags | {"kind": kind})


class ModelCacheMetrics:
    """Set by a recognizer replica about its models.

    Args:
        statistics: reads those of the model cache.
    """

    def __init__(self, statistics: Callable[[], ModelCacheStatistics]) -> None:
        self._statistics = statistics
        self._loaded = metrics.new_gauge(metrics.MODELS_LOADED)
        self._is_loaded = metrics.new_gauge(metrics.MODEL_LOADED)
        self._bytes = metrics.new_gauge(metrics.MODEL_BYTES)
        self._loads = metrics.new_counter(metrics.MODEL_LOADS)
        self._evictions = metrics.new_counter(metrics.MODEL_EVICTIONS)
        self._reported: dict[tuple[Counter, str], int] = {}
        self._sampler = Sampler(self._sample)
        self.start()

    def start(self) -> None:
        """Starts sampling the gauges, if an event loop runs already."""
        self._sampler.start()

    def _sample(self) -> None:
        statistics = self._statistics()
        self._loaded.set(len(statistics.loaded))
        for model in {*statistics.num_loads, *statistics.loaded}:
            self._is_loaded.set(int(model in statistics.loaded), tags={"model": model})
        self._bytes.set(statistics.loaded_bytes)
        self._count_up(self._loads, statistics.num_loads)
        # Series begin at 0 with a model's load, so that its first eviction is an increase.
        never_evicted = dict.fromkeys(statistics.loaded, 0)
        self._count_up(self._evictions, {**never_evicted, **statistics.num_evictions})

    def _count_up(self, counter: Counter, totals: Mapping[str, int]) -> None:
        for model, total in totals.items():
            if (counter, model) not in self._reported:
                metrics.begin_series(counter, {"model": model})
            increase = total - self._reported.get((counter, model), 0)
            if increase > 0:  # Ray's counters do not accept 0
                counter.inc(increase, tags={"model": model})
            self._reported[counter, model] = total


@cache
def _retries() -> Counter:
    return metrics.new_counter(metrics.RETRIES)


_retries_of: dict[str, int] = {}


def count_retry(stage: Stage, context: RequestContext) -> None:
    """Counts a retry of a call whose replica was lost."""
    _retries().inc(tags={"stage": stage})
    _retries_of[context.request_id] = _retries_of.get(context.request_id, 0) + 1


def take_retries(context: RequestContext) -> int:
    """Returns how many calls of the request this process has retried, and resets the count.

    Every process that makes calls for a request must call this at its end.
    """
    return _retries_of.pop(context.request_id, 0)


class PackInfo:
    """Reports the pack that a replica was started with, if any."""

    def __init__(self, readiness: StageReadiness | None) -> None:
        self._gauge = metrics.new_gauge(metrics.PACK)
        self._readiness = readiness

    def set(self) -> None:
        if self._readiness is not None:
            tags = {label: str(getattr(self._readiness, label)) for label in metrics.PACK.labels}
            self._gauge.set(1, tags=tags)


class Sampler:
    """Calls a function once a second for as long as the replica lives.

    It belongs to the event loop that the first call of `start` finds.

    Args:
        sample: reads state and sets gauges; quick.
    """

    def __init__(self, sample: Callable[[], None]) -> None:
        self._sample = sample
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts sampling; does nothing if it runs already or outside of an event loop."""
        if self._task is None:
            with contextlib.suppress(RuntimeError):
                self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            self._sample()
            await asyncio.sleep(_SAMPLE_PERIOD_S)


def gpu_bytes_of(readiness: StageReadiness) -> Callable[[], tuple[int, int] | None]:
    """Returns a function that reads the bytes allocated and reserved on the model's device."""

    def read() -> tuple[int, int] | None:
        memory = gpu_memory(readiness.device)
        return None if memory is None else (memory.allocated_bytes, memory.reserved_bytes)

    return read
