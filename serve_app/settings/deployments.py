"""Size, placement and scaling of each Ray Serve deployment."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from serve_app.scheduling.autoscaling import ScalingLimits
from serve_app.settings.section import Advanced, NumGpus, Section

_NUM_CPUS = (
    "CPU cores that Ray reserves per replica. A fraction lets several replicas share a core. It "
    "does not limit compute threads: `num_threads` sets those."
)
_MAX_ONGOING_REQUESTS = (
    "Number of calls that a replica holds at once: HTTP requests at the ingress, recordings at the "
    "segmenter, chunks at the recognizer. At the ingress at least `admission.max_running` + "
    "`admission.max_waiting` + 32; at the recognizer more than `segmenter.max_in_flight` times the "
    "running requests, since only calls that it holds share it fairly."
)


class AutoscalingSettings(Section):
    """Autoscaling of a deployment on its requests in flight."""

    min_replicas: int = Field(
        default=1,
        ge=0,
        description="Minimum number of replicas. With 0 the first request after a pause waits "
        "until a replica has started.",
    )
    max_replicas: int = Field(
        default=4,
        ge=1,
        description="Maximum number of replicas. Choose what the cluster's CPUs and GPUs can hold.",
    )
    target_ongoing_requests: Advanced[float] = Field(
        default=2.0,
        gt=0,
        description="Target number of requests in flight per replica, for the policy "
        "`ongoing_requests`. A lower value starts more replicas.",
    )
    upscale_delay_s: Advanced[float] = Field(
        default=15.0,
        ge=0,
        description="Time in s that the load must call for more replicas before they are started. "
        "A shorter delay reacts sooner, but starts replicas for short bursts.",
    )
    downscale_delay_s: Advanced[float] = Field(
        default=300.0,
        ge=0,
        description="Time in s that the load must call for fewer replicas before some are stopped. "
        "Longer than the pauses in your traffic avoids repeated restarts.",
    )
    idle_to_zero_delay_s: Advanced[float] = Field(
        default=600.0,
        ge=0,
        description="Time in s without any work after which the last replica is stopped, if "
        "`min_replicas` is 0.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> AutoscalingSettings:
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is larger than max_replicas")
        return self


class RecognizerAutoscalingSettings(AutoscalingSettings):
    """Autoscaling of the recognizer, on queued audio by default."""

    policy: Advanced[Literal["queued_audio", "ongoing_requests"]] = Field(
        default="queued_audio",
        description="`queued_audio` scales on the seconds of audio that wait for recognition, "
        "including the parts of long recordings that have not been sent yet; `ongoing_requests` "
        "is Ray Serve's own policy, which counts calls.",
    )
    target_drain_s: float = Field(
        default=30.0,
        gt=0,
        description="Time in s in which all queued audio should be recognized: replicas = audio / "
        "(speed of a replica * this time). A shorter time starts more replicas sooner.",
    )
    fallback_rtfx: float = Field(
        default=20.0,
        gt=0,
        description="Seconds of audio that a replica recognizes per second, used until that has "
        "been measured. `paraserve bench memory` measures it.",
    )
    upscale_step: Advanced[int] = Field(
        default=4, ge=1, description="Maximum number of replicas added per `step_period_s`."
    )
    downscale_step: Advanced[int] = Field(
        default=1, ge=1, description="Maximum number of replicas stopped per `step_period_s`."
    )
    step_period_s: Advanced[float] = Field(
        default=15.0,
        ge=0,
        description="Period in s of `upscale_step` and `downscale_step`. About the start time of a "
        "replica is right: with less, the same queue starts replicas twice.",
    )
    report_interval_s: Advanced[float] = Field(
        default=2.0,
        ge=0.5,
        le=30,
        description="Interval in s at which replicas report their queues to the controller. It "
        "adds to `upscale_delay_s`.",
    )

    def limits(self) -> ScalingLimits:
        """Returns the limits of the policy `queued_audio`."""
        return ScalingLimits(
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            target_drain_s=self.target_drain_s,
            fallback_rtfx=self.fallback_rtfx,
            upscale_delay_s=self.upscale_delay_s,
            downscale_delay_s=self.downscale_delay_s,
            idle_to_zero_delay_s=self.idle_to_zero_delay_s,
            upscale_step=self.upscale_step,
            downscale_step=self.downscale_step,
            step_period_s=self.step_period_s,
        )


class DeploymentSettings(Section):
    """Placement and size of one Ray Serve deployment."""

    num_replicas: int = Field(
        default=1, ge=1, description="Number of replicas. Unused if `autoscaling` is set."
    )
    num_cpus: float = Field(default=0.5, ge=0, description=_NUM_CPUS)
    num_gpus: NumGpus = Field(
        default=0.0,
        description="GPUs, or the fraction of one, that Ray reserves per replica. The fractions "
        "on one GPU must add up to at most 1.",
    )
    max_ongoing_requests: Advanced[int] = Field(default=64, ge=1, description=_MAX_ONGOING_REQUESTS)
    graceful_shutdown_timeout_s: Advanced[float] = Field(
        default=600.0,
        ge=0,
        description="Time in s that a replica gets to finish its requests when it is stopped. "
        "Choose more than your requests usually take.",
    )
    autoscaling: AutoscalingSettings | None = Field(
        default=None, description="Scales the number of replicas with the load if set."
    )


class SegmenterDeploymentSettings(DeploymentSettings):
    max_ongoing_requests: Advanced[int] = Field(
        default=256, ge=1, description=_MAX_ONGOING_REQUESTS
    )


class RecognizerDeploymentSettings(DeploymentSettings):
    num_cpus: float = Field(default=1.0, ge=0, description=_NUM_CPUS)
    max_ongoing_requests: Advanced[int] = Field(
        default=1024, ge=1, description=_MAX_ONGOING_REQUESTS
    )
    autoscaling: RecognizerAutoscalingSettings | None = Field(
        default=None, description="Scales the number of replicas with the load if set."
    )


class PunctuatorDeploymentSettings(DeploymentSettings):
    num_cpus: float = Field(default=0.25, ge=0, description=_NUM_CPUS)
    max_ongoing_requests: Advanced[int] = Field(
        default=256, ge=1, description=_MAX_ONGOING_REQUESTS
    )


class SpeakerEmbedderDeploymentSettings(DeploymentSettings):
    max_ongoing_requests: Advanced[int] = Field(
        default=256, ge=1, description=_MAX_ONGOING_REQUESTS
    )


class IngressDeploymentSettings(DeploymentSettings):
    num_cpus: float = Field(default=0.25, ge=0, description=_NUM_CPUS)
    max_ongoing_requests: Advanced[int] = Field(
        default=256, ge=1, description=_MAX_ONGOING_REQUESTS
    )
