"""Size, placement and scaling of each Ray Serve deployment."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from serve_app.settings.section import NumGpus, Section


class AutoscalingSettings(Section):
    """Bounds and pace of a deployment whose size follows its requests in flight."""

    min_replicas: int = Field(
        default=1,
        ge=0,
        description="Replicas kept when idle. At 0 the first request after a pause waits until "
        "a replica has started.",
    )
    max_replicas: int = Field(default=4, ge=1, description="Replicas at most.")
    target_ongoing_requests: float = Field(
        default=2.0,
        gt=0,
        description="Requests in flight per replica to aim at, for the policy `ongoing_requests`.",
    )
    upscale_delay_s: float = Field(
        default=15.0,
        ge=0,
        description="More replicas are started when the load has asked for them this long, in s. "
        "Shorter answers bursts sooner and starts replicas for bursts that are soon over.",
    )
    downscale_delay_s: float = Field(
        default=300.0,
        ge=0,
        description="Replicas are stopped when the load has not needed them this long, in s. "
        "Longer than the pauses between your waves of load keeps them from coming and going.",
    )
    idle_to_zero_delay_s: float = Field(
        default=600.0,
        ge=0,
        description="With `min_replicas` 0: the last replica is stopped when there has been "
        "nothing to do at all this long, in s.",
    )
    look_back_s: float = Field(
        default=30.0,
        gt=0,
        description="Requests in flight are averaged over this time in s, for the policy "
        "`ongoing_requests`.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> AutoscalingSettings:
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is larger than max_replicas")
        return self


class RecognizerAutoscalingSettings(AutoscalingSettings):
    """The recognizer's size may follow the audio that waits, wherever it waits."""

    policy: Literal["queued_audio", "ongoing_requests"] = Field(
        default="queued_audio",
        description="`queued_audio` counts the seconds of audio that wait, those that a long "
        "file's window holds back included; `ongoing_requests` is Ray Serve's own policy, which "
        "counts calls.",
    )
    target_drain_s: float = Field(
        default=30.0,
        gt=0,
        description="Time in s in which all the audio that is there shall be recognized: "
        "replicas = audio / (speed of one * this). Smaller starts more replicas sooner.",
    )
    fallback_rtfx: float = Field(
        default=20.0,
        gt=0,
        description="Seconds of audio that a replica recognizes per second, until that has been "
        "measured. `paraserve bench` tells it for a pack and a machine.",
    )
    hysteresis: float = Field(
        default=0.2,
        ge=0,
        le=2,
        description="Share by which the waiting audio must fall below what a smaller number of "
        "replicas could take before one is stopped.",
    )
    max_utilization: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="No replica is stopped if those that are left would be busy for more than "
        "this share of their time.",
    )
    upscale_step: int = Field(
        default=4, ge=1, description="Replicas added at most per `step_period_s`."
    )
    downscale_step: int = Field(
        default=1, ge=1, description="Replicas stopped at most per `step_period_s`."
    )
    step_period_s: float = Field(
        default=15.0,
        ge=0,
        description="See the steps, in s. About the time that a replica takes to start keeps a "
        "queue from being answered twice.",
    )
    report_interval_s: float = Field(
        default=2.0,
        ge=0.5,
        le=30,
        description="How often each replica tells the controller what waits, in s. Adds to the "
        "upscale delay.",
    )


class DeploymentSettings(Section):
    """Placement and size of one Ray Serve deployment."""

    num_replicas: int = Field(default=1, ge=1, description="Replicas, unless `autoscaling` is set.")
    num_cpus: float = Field(
        default=0.5,
        ge=0,
        description="Cores that Ray reserves per replica. Fractions let several replicas "
        "share a core; compute threads are set by `num_threads`, not by this.",
    )
    num_gpus: NumGpus = Field(
        default=0.0,
        description="GPUs, or the fraction of one, that Ray reserves per replica. Fractions "
        "on one GPU must add up to at most 1.0.",
    )
    max_ongoing_requests: int = Field(
        default=64,
        ge=1,
        description="Calls that a replica holds at once. Below what fills a batch, batches "
        "stay small.",
    )
    graceful_shutdown_timeout_s: float = Field(
        default=600.0,
        ge=0,
        description="How long a replica that is told to stop may finish what it has begun.",
    )
    autoscaling: AutoscalingSettings | None = Field(
        default=None, description="Set to let the number of replicas follow the load."
    )


class SegmenterDeploymentSettings(DeploymentSettings):
    max_ongoing_requests: int = Field(
        default=256,
        ge=1,
        description="Recordings at once. Those beyond it wait in order of arrival, a clip behind "
        "long files, so the ingress's `admission` should be what limits them.",
    )


class RecognizerDeploymentSettings(DeploymentSettings):
    num_cpus: float = Field(default=1.0, ge=0, description="Cores reserved per replica.")
    max_ongoing_requests: int = Field(
        default=1024,
        ge=1,
        description="Calls that a replica holds at once. Only what it holds is served in fair "
        "order, so this should exceed `segmenter.max_in_flight` times the requests that may run.",
    )
    autoscaling: RecognizerAutoscalingSettings | None = Field(
        default=None, description="Set to let the number of replicas follow the load."
    )


class PunctuatorDeploymentSettings(DeploymentSettings):
    num_cpus: float = Field(default=0.25, ge=0, description="Cores reserved per replica.")
    max_ongoing_requests: int = Field(
        default=256, ge=1, description="Calls that a replica holds at once, one a request."
    )


class IngressDeploymentSettings(DeploymentSettings):
    num_cpus: float = Field(default=0.25, ge=0, description="Cores reserved per replica.")
    max_ongoing_requests: int = Field(default=256, ge=1, description="HTTP requests at once.")
