"""All metrics that Paraserve exports, declared in one table.

Ray collects them on each node and serves them in Prometheus format, with the prefix
`ray_`, on the port that `ray start --metrics-export-port` sets. Serve adds the
labels `deployment`, `replica` and `application`. `docs/metrics.md` is generated from this table.

No metric is set per chunk: queues are sampled once a second, and counters and timers are
updated per batch, call or request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, cast

from ray.serve.metrics import Counter, Gauge, Histogram

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_LIVE_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_REQUEST_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """Declaration of one metric; its unit is part of its name.

    Attributes:
        name: as exported, without `ray_`.
        kind: of the metric.
        description: for `docs/metrics.md` and Prometheus.
        labels: their names.
        buckets: upper bounds, of a histogram.
        initial: of a counter: label values of the series that are exported with 0 from the
            start. Prometheus sees no increase in a series that begins with 1.
    """

    name: str
    kind: Kind
    description: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    initial: tuple[tuple[str, ...], ...] = ()


@dataclass(slots=True)
class _Table:
    metrics: dict[str, Metric] = field(default_factory=dict)

    def counter(
        self,
        name: str,
        description: str,
        *labels: str,
        initial: tuple[tuple[str, ...], ...] = (),
    ) -> Metric:
        # A counter without labels has one series.
        series = initial if labels else ((),)
        return self._add(Metric(name, "counter", description, labels, initial=series))

    def gauge(self, name: str, description: str, *labels: str) -> Metric:
        return self._add(Metric(name, "gauge", description, labels))

    def histogram(
        self, name: str, buckets: tuple[float, ...], description: str, *labels: str
    ) -> Metric:
        return self._add(Metric(name, "histogram", description, labels, buckets))

    def _add(self, metric: Metric) -> Metric:
        self.metrics[metric.name] = metric
        return metric


_TABLE = _Table()

REQUESTS = _TABLE.counter(
    "paraserve_requests_total",
    "Transcription requests that ended, and requests refused for their key, by HTTP status and "
    "error code (`none` without one).",
    "status",
    "code",
    initial=(
        ("200", "none"),
        ("429", "overloaded"),
        ("500", "internal_error"),
        ("500", "recognition_failed"),
        ("503", "model_unavailable"),
        ("503", "not_ready"),
        ("503", "speakers_unavailable"),
        ("503", "storage_full"),
        ("504", "deadline_exceeded"),
    ),
)
KEY_REQUESTS = _TABLE.counter(
    "paraserve_key_requests_total",
    "Requests by the name of their API key (`anonymous` without one) and HTTP status.",
    "key",
    "status",
)
KEY_AUDIO = _TABLE.counter(
    "paraserve_key_audio_seconds_total",
    "Audio of recordings answered with 200, each separate channel counted, by the name of the "
    "API key.",
    "key",
)
REQUEST_TIME = _TABLE.histogram(
    "paraserve_request_seconds",
    _REQUEST_SECONDS,
    "Time from the arrival of such a request to the end of its response.",
    "status",
)
SHEDS = _TABLE.counter(
    "paraserve_requests_shed_total",
    "Requests refused with 429, by error code.",
    "reason",
    initial=(("overloaded",),),
)
DEADLINE_MISSES = _TABLE.counter(
    "paraserve_deadline_misses_total", "Requests that exceeded their deadline."
)
PARTIALS = _TABLE.counter(
    "paraserve_partial_transcripts_total",
    "Transcripts in which a part is missing because it failed.",
)
UNLABELLED = _TABLE.counter(
    "paraserve_unlabelled_transcripts_total",
    "Transcripts whose speaker labels were asked for and could not be made.",
)
AUDIO_ACCEPTED = _TABLE.counter(
    "paraserve_audio_accepted_seconds_total",
    "Audio of all recordings whose duration was determined, whatever their result.",
)
AUDIO_DONE = _TABLE.counter(
    "paraserve_audio_done_seconds_total", "Audio of recordings answered with 200."
)
UPLOAD_BYTES = _TABLE.gauge(
    "paraserve_upload_bytes_in_flight", "Bytes of uploads that this ingress has admitted."
)
AUDIO_IN_FLIGHT = _TABLE.gauge(
    "paraserve_audio_in_flight_seconds", "Audio of the requests that this ingress is processing."
)
REQUESTS_RUNNING = _TABLE.gauge("paraserve_requests_running", "Requests being processed.")
REQUESTS_WAITING = _TABLE.gauge("paraserve_requests_waiting", "Requests in the queue.")
REQUESTS_UPLOADING = _TABLE.gauge(
    "paraserve_requests_uploading", "Requests whose upload is in progress."
)
LINE_WAIT = _TABLE.gauge(
    "paraserve_line_oldest_wait_seconds", "Waiting time of the first request in the queue."
)
ADMISSION_LIMIT = _TABLE.gauge(
    "paraserve_admission_limit",
    "Limit of this ingress for `running` and `waiting` requests, upload `bytes` and `audio_s`.",
    "limit",
)
KEYS_STALE = _TABLE.gauge(
    "paraserve_keys_stale_seconds",
    "Seconds since the keys file was last valid; 0 while it is valid or no keys are required.",
)

RECORDINGS = _TABLE.gauge("paraserve_recordings_open", "Recordings that a segmenter is processing.")
BACKLOG = _TABLE.gauge(
    "paraserve_backlog_audio_seconds",
    "Audio of a segmenter's recordings that is not recognized yet, including audio that is not "
    "decoded yet.",
)
CHUNKS = _TABLE.counter(
    "paraserve_chunks_total",
    "Chunks returned to a segmenter, by result.",
    "status",
    initial=(("done",), ("empty",), ("failed",)),
)
RETRIES = _TABLE.counter(
    "paraserve_retries_total",
    "Calls repeated because a replica died, by called stage.",
    "stage",
    initial=(("vad",), ("asr",), ("punctuation",), ("speakers",)),
)

QUEUED_AUDIO = _TABLE.gauge("paraserve_queued_audio_seconds", "Audio in a recognizer's queue.")
RUNNING_AUDIO = _TABLE.gauge(
    "paraserve_running_audio_seconds", "Audio in a recognizer's running batches."
)
RTFX = _TABLE.gauge(
    "paraserve_rtfx", "Recent speed of a recognizer: seconds of audio per second of compute time."
)
QUEUED_ITEMS = _TABLE.gauge("paraserve_queued_items", "Items in a model's queue.", "stage")
OLDEST_WAIT = _TABLE.gauge(
    "paraserve_queue_oldest_wait_seconds", "Age of the oldest item in a model's queue.", "stage"
)
BATCHES = _TABLE.counter(
    "paraserve_batches_total",
    "Batches run.",
    "stage",
    initial=(("asr",), ("punctuation",), ("speakers",)),
)
BATCH_ITEMS = _TABLE.counter(
    # Not a histogram: the sums that Ray 2.60 exports come from bucket midpoints.
    "paraserve_batch_items_total",
    "Items of all batches; divided by paraserve_batches_total, the mean size of a batch.",
    "stage",
    initial=(("asr",), ("punctuation",), ("speakers",)),
)
PADDING = _TABLE.gauge(
    "paraserve_padding_ratio",
    "Computed cost divided by useful cost of all batches; 1 means no padding.",
    "stage",
)
EXPIRED = _TABLE.counter(
    "paraserve_items_expired_total",
    "Items dropped because their deadline had passed.",
    "stage",
    initial=(("asr",), ("punctuation",), ("speakers",)),
)
QUEUE_TIME = _TABLE.histogram(
    "paraserve_stage_queue_seconds", _SECONDS, "Time that an item waited for its batch.", "stage"
)
WORK_TIME = _TABLE.histogram(
    "paraserve_stage_work_seconds",
    _SECONDS,
    "Compute time of a batch, or of a block of decoded audio.",
    "stage",
)
MODELS_LOADED = _TABLE.gauge(
    "paraserve_models_loaded", "Models in the memory of a recognizer replica."
)
MODEL_LOADED = _TABLE.gauge(
    "paraserve_model_loaded",
    "1 for each model in the memory of a recognizer replica, 0 for an evicted one.",
    "model",
)
MODEL_BYTES = _TABLE.gauge(
    "paraserve_models_loaded_bytes", "Memory of the loaded models, estimated from their packs."
)
MODEL_LOADS = _TABLE.counter(
    "paraserve_model_loads_total", "Models loaded by a recognizer replica.", "model"
)
MODEL_EVICTIONS = _TABLE.counter(
    "paraserve_model_evictions_total",
    "Models evicted by a recognizer replica to make room for others.",
    "model",
)
PACK = _TABLE.gauge(
    "paraserve_pack_info",
    "1 for the model pack that a replica loaded first; see paraserve_model_loaded for others.",
    "stage",
    "pack",
    "checksum",
    "device",
)
GPU_MEMORY = _TABLE.gauge(
    "paraserve_gpu_memory_bytes",
    "GPU memory of a replica: `allocated` to tensors, `reserved` by the allocator. Only on GPUs.",
    "stage",
    "kind",
)

LIVE_SESSIONS = _TABLE.gauge("paraserve_live_sessions", "Open live sessions of a replica.")
LIVE_SPEAKING = _TABLE.gauge(
    "paraserve_live_sessions_speaking", "Live sessions in which speech is going on."
)
LIVE_LAG = _TABLE.gauge(
    "paraserve_live_lag_seconds",
    "Audio that waits to be processed in the live session of a replica that has the most: received "
    "and not yet through the VAD, or of ended segments without a text.",
)
LIVE_SESSIONS_ENDED = _TABLE.counter(
    "paraserve_live_sessions_ended_total", "Live sessions that have ended."
)
LIVE_REFUSALS = _TABLE.counter(
    "paraserve_live_sessions_refused_total",
    "Live sessions that were refused, by error code: `overloaded` at a limit, `shutting_down` by a "
    "replica that is being stopped.",
    "reason",
    initial=(("overloaded",), ("shutting_down",)),
)
LIVE_SEGMENTS = _TABLE.counter(
    "paraserve_live_segments_total",
    "Segments of live sessions that ended, by `status`: `done` with a text, `failed` without.",
    "status",
    initial=(("done",), ("failed",)),
)
LIVE_PARTIALS = _TABLE.counter(
    "paraserve_live_partials_total", "Decodes of segments that were still open."
)
LIVE_THINNED = _TABLE.counter(
    "paraserve_live_partials_thinned_total",
    "Decodes of open segments that were left out because earlier ones had not come back.",
)
LIVE_RETRACTIONS = _TABLE.counter(
    "paraserve_live_retractions_total",
    "Words that were told and are not in the final text; 0 by construction.",
)
LIVE_AUDIO = _TABLE.counter(
    "paraserve_live_audio_seconds_total", "Audio that live sessions have received."
)
LIVE_FIRST_PARTIAL_TIME = _TABLE.histogram(
    "paraserve_live_first_partial_seconds",
    _LIVE_SECONDS,
    "Time from the arrival of the start of a segment to its first text.",
)
LIVE_FINAL_TIME = _TABLE.histogram(
    "paraserve_live_final_seconds",
    _LIVE_SECONDS,
    "Time from the arrival of the audio that ended a segment, including the silence that the VAD "
    "waits for, to its final text.",
)
JOBS = _TABLE.gauge(
    "paraserve_jobs",
    "Jobs of the store that are `queued` or `running`; each runner reports all of them.",
    "state",
)
JOBS_QUEUED_AUDIO = _TABLE.gauge(
    "paraserve_jobs_queued_audio_seconds",
    "Audio of the queued jobs, as far as its length is known; each runner reports all of it.",
)
JOBS_OLDEST = _TABLE.gauge(
    "paraserve_jobs_oldest_queued_seconds", "Age of the oldest queued job; 0 without one."
)
JOBS_ON_RUNNER = _TABLE.gauge("paraserve_jobs_on_runner", "Jobs that this runner works on.")
JOBS_ENDED = _TABLE.counter(
    "paraserve_jobs_ended_total",
    "Jobs that runners have ended, by status and error code (`none` without one). Those that "
    "their owners cancelled are not among them.",
    "status",
    "code",
    initial=(
        ("completed", "none"),
        ("expired", "none"),
        ("failed", "internal_error"),
        ("failed", "recognition_failed"),
    ),
)
JOB_ATTEMPTS = _TABLE.counter(
    "paraserve_job_attempts_total",
    "Attempts at jobs, by what they came to: `completed` and `failed` end a job; `handed_back` "
    "jobs could not run then, `lost` ones were cancelled or taken over, `abandoned` ones met an "
    "unexpected error.",
    "outcome",
    initial=(("completed",), ("failed",), ("handed_back",), ("lost",), ("abandoned",)),
)
JOB_AUDIO = _TABLE.counter(
    "paraserve_job_audio_recognized_seconds_total", "Audio recognized for jobs, as it comes."
)
WEBHOOK_ATTEMPTS = _TABLE.counter(
    "paraserve_webhook_attempts_total",
    "Attempts to deliver a webhook: `delivered`, `refused` by the receiver's status, "
    "`unreachable`, `blocked` for its address, `unsigned` without a secret of the key.",
    "outcome",
    initial=(("delivered",), ("refused",), ("unreachable",), ("blocked",), ("unsigned",)),
)
WEBHOOKS_UNDELIVERED = _TABLE.counter(
    "paraserve_webhooks_undelivered_total", "Webhooks that were given up after the last attempt."
)
JOB_STORE_ERRORS = _TABLE.counter(
    "paraserve_job_store_errors_total",
    "Calls that the database or the storage of the jobs did not answer; they are repeated.",
)

METRICS: Mapping[str, Metric] = _TABLE.metrics
"""All metrics by name."""


def new_counter(metric: Metric) -> Counter:
    """Returns a counter that exports its `initial` series from now on."""
    counter = Counter(metric.name, description=metric.description, tag_keys=_keys(metric))
    for values in metric.initial:
        begin_series(counter, dict(zip(metric.labels, values, strict=True)))
    return counter


def begin_series(counter: Counter, tags: dict[str, str]) -> None:
    """Exports a series at 0; the counter's `inc` rejects that (Ray 2.60, util/metrics.py)."""
    counter._record(0.0, tags)


def new_gauge(metric: Metric) -> Gauge:
    return Gauge(metric.name, description=metric.description, tag_keys=_keys(metric))


def new_histogram(metric: Metric) -> Histogram:
    return Histogram(
        metric.name,
        description=metric.description,
        boundaries=list(metric.buckets),
        tag_keys=_keys(metric),
    )


def _keys(metric: Metric) -> tuple[str]:
    """Returns the label names; Ray 2.60 annotates a one-tuple and accepts any length."""
    return cast(tuple[str], metric.labels)
