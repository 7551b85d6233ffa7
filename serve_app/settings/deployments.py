"""Size, placement and scaling of each Ray Serve deployment."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from serve_app.settings.section import Section


class AutoscalingSettings(Section):
    """Bounds for Ray Serve's own request-count policy."""

    min_replicas: int = Field(default=1, ge=0, description="Replicas kept when idle.")
    max_replicas: int = Field(default=4, ge=1, description="Replicas at most.")
    target_ongoing_requests: float = Field(
        default=2.0, gt=0, description="Requests in flight per replica to aim at."
    )

    @model_validator(mode="after")
    def _ordered(self) -> AutoscalingSettings:
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is larger than max_replicas")
        return self


class DeploymentSettings(Section):
    """Placement and size of one Ray Serve deployment."""

    num_replicas: int = Field(default=1, ge=1, description="Replicas, unless `autoscaling` is set.")
    num_cpus: float = Field(
        default=0.5,
        ge=0,
        description="Cores that Ray reserves per replica. Fractions let several replicas "
        "share a core; compute threads are set by `num_threads`, not by this.",
    )
    num_gpus: float = Field(
        default=0.0,
        ge=0,
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

    @field_validator("num_gpus")
    @classmethod
    def _whole_above_one(cls, num_gpus: float) -> float:
        if num_gpus > 1 and num_gpus != int(num_gpus):
            raise ValueError("a replica takes a fraction of one GPU or whole GPUs")
        return num_gpus


class SegmenterDeployment(DeploymentSettings):
    max_ongoing_requests: int = Field(default=16, ge=1, description="Recordings at once.")


class RecognizerDeployment(DeploymentSettings):
    num_cpus: float = Field(default=1.0, ge=0, description="Cores reserved per replica.")


class PunctuatorDeployment(DeploymentSettings):
    num_cpus: float = Field(default=0.25, ge=0, description="Cores reserved per replica.")


class IngressDeployment(DeploymentSettings):
    num_cpus: float = Field(default=0.25, ge=0, description="Cores reserved per replica.")
    max_ongoing_requests: int = Field(default=256, ge=1, description="HTTP requests at once.")
