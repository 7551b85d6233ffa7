"""Every metric that Paraserve exports, declared in one table, and who sets which.

Ray gathers them on each node and serves them in Prometheus' format, every name with
`ray_` before it, on the port that `ray start --metrics-export-port` sets. Serve adds the
labels `deployment`, `replica` and `application`. `docs/metrics.md` is written from here.

Nothing is set for each chunk: what describes a queue is read once a second, and what
counts or times goes by batch, call or request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, cast

from ray.serve.metrics import Counter, Gauge, Histogram

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_REQUEST_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
_ITEMS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as it is declared; its unit is in its name.

    Attributes:
        name: as it is exported, without `ray_`.
        kind: what it can do.
        description: for `docs/metrics.md` and Prometheus.
        labels: their names.
        buckets: upper bounds, of a histogram.
        initial: of a counter: values of the labels, in their order, of the series that are there
            with 0 from the start. Prometheus sees no increase in a series that begins with 1.
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
        # Without labels there is one series, whatever happens.
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
        ("503", "storage_full"),
        ("504", "deadline_exceeded"),
    ),
)
REQUEST_TIME = _TABLE.histogram(
    "paraserve_request_seconds",
    _REQUEST_SECONDS,
    "From the arrival of such a request to the end of its answer.",
    "status",
)
SHEDS = _TABLE.counter(
    "paraserve_requests_shed_total",
    "Requests refused with 429, by error code.",
    "reason",
    initial=(("overloaded",),),
)
DEADLINE_MISSES = _TABLE.counter(
    "paraserve_deadline_misses_total", "Requests that their deadline ended."
)
PARTIALS = _TABLE.counter(
    "paraserve_partial_transcripts_total", "Transcripts that lack a stretch that failed."
)
AUDIO_ACCEPTED = _TABLE.counter(
    "paraserve_audio_accepted_seconds_total",
    "Audio of recordings whose length became known, whatever became of them.",
)
AUDIO_DONE = _TABLE.counter(
    "paraserve_audio_done_seconds_total", "Audio of recordings that were answered with 200."
)
UPLOAD_BYTES = _TABLE.gauge(
    "paraserve_upload_bytes_in_flight", "Bytes of uploads that this ingress has admitted."
)
AUDIO_IN_FLIGHT = _TABLE.gauge(
    "paraserve_audio_in_flight_seconds", "Audio of the requests that this ingress works on."
)
REQUESTS_RUNNING = _TABLE.gauge("paraserve_requests_running", "Requests that are worked on.")
REQUESTS_WAITING = _TABLE.gauge("paraserve_requests_waiting", "Requests that wait in line.")
REQUESTS_UPLOADING = _TABLE.gauge(
    "paraserve_requests_uploading", "Requests whose uploads are arriving."
)
LINE_WAIT = _TABLE.gauge(
    "paraserve_line_oldest_wait_seconds", "How long the first request in line has waited."
)
KEYS_STALE = _TABLE.gauge(
    "paraserve_keys_stale_seconds",
    "Seconds since the keys file was last found good; 0 while it is, or where no keys are "
    "demanded.",
)

RECORDINGS = _TABLE.gauge("paraserve_recordings_open", "Recordings that a segmenter works on.")
BACKLOG = _TABLE.gauge(
    "paraserve_backlog_audio_seconds",
    "Audio of a segmenter's recordings that no recognizer has answered yet, that which is not "
    "decoded yet included.",
)
CHUNKS = _TABLE.counter(
    "paraserve_chunks_total",
    "Chunks that came back to a segmenter, by their fate.",
    "status",
    initial=(("done",), ("empty",), ("failed",)),
)
RETRIES = _TABLE.counter(
    "paraserve_retries_total",
    "Calls made again because a replica died, by callee.",
    "stage",
    initial=(("vad",), ("asr",), ("punctuation",)),
)

QUEUED_AUDIO = _TABLE.gauge(
    "paraserve_queued_audio_seconds", "Audio that waits in a recognizer's queue."
)
RUNNING_AUDIO = _TABLE.gauge(
    "paraserve_running_audio_seconds", "Audio in the batches that a recognizer runs."
)
RTFX = _TABLE.gauge(
    "paraserve_rtfx", "Seconds of audio that a recognizer does in a second of work, of late."
)
QUEUED_ITEMS = _TABLE.gauge("paraserve_queued_items", "Items in a model's queue.", "stage")
OLDEST_WAIT = _TABLE.gauge(
    "paraserve_queue_oldest_wait_seconds", "Age of the oldest item in a model's queue.", "stage"
)
BATCHES = _TABLE.counter(
    "paraserve_batches_total", "Batches run.", "stage", initial=(("asr",), ("punctuation",))
)
BATCH_ITEMS = _TABLE.histogram("paraserve_batch_items", _ITEMS, "Items in a batch.", "stage")
PADDING = _TABLE.gauge(
    "paraserve_padding_ratio", "Computed over useful cost of all batches; 1 is none.", "stage"
)
EXPIRED = _TABLE.counter(
    "paraserve_items_expired_total",
    "Items dropped because their deadline had passed.",
    "stage",
    initial=(("asr",), ("punctuation",)),
)
QUEUE_TIME = _TABLE.histogram(
    "paraserve_stage_queue_seconds", _SECONDS, "How long an item waited for its batch.", "stage"
)
WORK_TIME = _TABLE.histogram(
    "paraserve_stage_work_seconds", _SECONDS, "How long a batch or decoded window took.", "stage"
)
MODELS_LOADED = _TABLE.gauge(
    "paraserve_models_loaded", "Models that a recognizer replica has in memory."
)
MODEL_LOADED = _TABLE.gauge(
    "paraserve_model_loaded",
    "1 for each model that a recognizer replica has in memory, 0 for one that it has given up.",
    "model",
)
MODEL_BYTES = _TABLE.gauge(
    "paraserve_models_loaded_bytes", "What the loaded models take, estimated from their packs."
)
MODEL_LOADS = _TABLE.counter(
    "paraserve_model_loads_total", "Models that a recognizer replica has loaded.", "model"
)
MODEL_EVICTIONS = _TABLE.counter(
    "paraserve_model_evictions_total",
    "Models that a recognizer replica has given up to make room for others.",
    "model",
)
PACK = _TABLE.gauge(
    "paraserve_pack_info",
    "1 for the model pack that a replica began with; see paraserve_model_loaded for several.",
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

METRICS: Mapping[str, Metric] = _TABLE.metrics
"""All metrics by name."""


def new_counter(metric: Metric) -> Counter:
    """Returns a counter whose `initial` series are exported from now on."""
    counter = Counter(metric.name, description=metric.description, tag_keys=_keys(metric))
    for values in metric.initial:
        # `inc` refuses 0, which is what a series begins with (Ray 2.60, util/metrics.py).
        counter._record(0.0, dict(zip(metric.labels, values, strict=True)))
    return counter


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
    """Ray 2.60 annotates a tuple of one, and takes any."""
    return cast(tuple[str], metric.labels)
