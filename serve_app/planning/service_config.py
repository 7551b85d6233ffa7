"""Size and limits of the simulated service, from the settings."""

from __future__ import annotations

from dataclasses import dataclass, replace

from serve_app.inference.batched import embedder_limits, punctuator_limits, recognizer_limits
from serve_app.planning.speech import SpeechOptions
from serve_app.scheduling.admission import MAX_RETRY_AFTER_S, Limits
from serve_app.scheduling.autoscaling import ScalingLimits
from serve_app.scheduling.batch_budget import BatchLimits
from serve_app.settings import DeploymentSettings, Settings

_GPU_STREAMS = 2
"""Batches in flight of a GPU engine: one is computed, one prepared."""


@dataclass(frozen=True, slots=True)
class ReplicaGroupShape:
    """Replicas of one model.

    Attributes:
        num_replicas: at the start.
        max_calls: calls that a replica holds at once.
        limits: of a batch.
        concurrency: batches in flight; the model computes one at a time.
        gpu_share: fraction of a GPU per replica.
    """

    num_replicas: int
    max_calls: int
    limits: BatchLimits
    concurrency: int = 1
    gpu_share: float = 0.0


@dataclass(frozen=True, slots=True)
class ServiceShape:
    """The whole service.

    Attributes:
        num_ingresses: each with an admission line of its own.
        admission: limits of one line.
        key_admission: limits of one key in it.
        max_retry_after_s: upper bound of `Retry-After` in a refusal.
        request_timeout_s: deadline of a request.
        num_segmenters: each with one thread.
        segmenter_max_recordings: recordings of one segmenter at once.
        max_in_flight: groups of one recording in flight.
        recognizer: its replicas; `num_replicas` is the initial number.
        punctuator: its replicas; None without punctuation.
        embedder: replicas of the speaker embedder; None without speaker labels.
        labeled_share: fraction of the requests that ask for speaker labels.
        scaling: None for a fixed number of recognizers.
        report_interval_s: time between two scaling decisions.
        mtbf_s: mean time until a recognizer replica dies; None for never.
        bytes_per_s: size of an upload per second of its audio.
    """

    num_ingresses: int
    admission: Limits
    key_admission: Limits
    max_retry_after_s: float
    request_timeout_s: float
    num_segmenters: int
    segmenter_max_recordings: int
    max_in_flight: int
    recognizer: ReplicaGroupShape
    punctuator: ReplicaGroupShape | None
    embedder: ReplicaGroupShape | None = None
    labeled_share: float = 1.0
    scaling: ScalingLimits | None = None
    report_interval_s: float = 2.0
    mtbf_s: float | None = None
    bytes_per_s: float = 4000.0

    def with_recognizers(self, num_replicas: int) -> ServiceShape:
        """Returns the same service with a fixed number of recognizers."""
        recognizer = replace(self.recognizer, num_replicas=num_replicas)
        return replace(self, recognizer=recognizer, scaling=None)

    def with_scaling(self, limits: ScalingLimits) -> ServiceShape:
        """Returns the same service with autoscaled recognizers."""
        recognizer = replace(self.recognizer, num_replicas=max(1, limits.min_replicas))
        return replace(self, recognizer=recognizer, scaling=limits)

    @property
    def num_embedders(self) -> int:
        """Speaker embedder replicas."""
        return 0 if self.embedder is None else self.embedder.num_replicas

    @property
    def replicas_per_gpu(self) -> int:
        """Recognizers that fit on a GPU, or on a node without any; at least 1."""
        share = self.recognizer.gpu_share
        return max(1, int(1.0 / share + 1e-9)) if share > 0 else 1


def shape_of(settings: Settings) -> ServiceShape:
    """Returns the service of the settings."""
    admission = settings.admission
    recognizer = settings.recognizer
    scaling = recognizer.deployment.autoscaling
    return ServiceShape(
        num_ingresses=settings.ingress.deployment.num_replicas,
        admission=Limits(
            admission.max_running,
            admission.max_waiting,
            admission.max_bytes,
            admission.max_audio_s,
        ),
        key_admission=Limits(
            admission.key_max_running,
            admission.key_max_waiting,
            admission.key_max_bytes,
            admission.key_max_audio_s,
        ),
        max_retry_after_s=MAX_RETRY_AFTER_S,
        request_timeout_s=settings.ingress.request_timeout_s,
        num_segmenters=settings.segmenter.deployment.num_replicas,
        segmenter_max_recordings=settings.segmenter.deployment.max_ongoing_requests,
        max_in_flight=settings.segmenter.max_in_flight,
        recognizer=_recognizer(settings),
        punctuator=_punctuator(settings) if "punctuation" in settings.stages else None,
        embedder=_embedder(settings) if "speakers" in settings.stages else None,
        scaling=scaling_limits(settings) if scaling is not None else None,
        report_interval_s=scaling.report_interval_s if scaling is not None else 2.0,
    )


def scaling_limits(settings: Settings, **changes: int) -> ScalingLimits:
    """Returns the limits of the scaling policy, from the settings or the defaults."""
    scaling = settings.recognizer.deployment.autoscaling
    if scaling is None:
        limits = ScalingLimits(1, max(1, settings.recognizer.deployment.num_replicas))
    else:
        limits = scaling.limits()
    return replace(limits, **changes)


def speech_options(settings: Settings, frame_s: float) -> SpeechOptions:
    return SpeechOptions(
        block_s=settings.segmenter.gather_s,
        max_group_s=settings.segmenter.max_group_s,
        max_chunk_s=settings.segmenter.max_segment_s,
        frame_s=frame_s,
    )


def _recognizer(settings: Settings) -> ReplicaGroupShape:
    recognizer = settings.recognizer
    return _group(
        recognizer.deployment, recognizer_limits(settings), _concurrency(recognizer.device)
    )


def _punctuator(settings: Settings) -> ReplicaGroupShape:
    punctuator = settings.punctuator
    return _group(
        punctuator.deployment, punctuator_limits(settings), _concurrency(punctuator.device)
    )


def _embedder(settings: Settings) -> ReplicaGroupShape:
    return _group(settings.speaker_embedder.deployment, embedder_limits(settings))


def _group(
    deployment: DeploymentSettings, limits: BatchLimits, concurrency: int = 1
) -> ReplicaGroupShape:
    return ReplicaGroupShape(
        num_replicas=deployment.num_replicas,
        max_calls=deployment.max_ongoing_requests,
        limits=limits,
        concurrency=concurrency,
        gpu_share=deployment.num_gpus,
    )


def _concurrency(device: str) -> int:
    return _GPU_STREAMS if device.startswith("cuda") else 1
