"""Live transcription: sessions, and how often open speech is decoded."""

from __future__ import annotations

from pydantic import Field

from serve_app.settings.deployments import AutoscalingSettings, DeploymentSettings
from serve_app.settings.section import Advanced, Section


class LiveAutoscalingSettings(AutoscalingSettings):
    """Autoscaling of live transcription on its open sessions."""

    target_ongoing_requests: Advanced[float] = Field(
        default=20.0,
        gt=0,
        description="Target number of open sessions per replica. A lower value starts more "
        "replicas.",
    )


class LiveDeploymentSettings(DeploymentSettings):
    max_ongoing_requests: Advanced[int] = Field(
        default=256, ge=1, description="Number of sessions and requests that a replica holds."
    )
    graceful_shutdown_timeout_s: Advanced[float] = Field(
        default=300.0,
        ge=0,
        description="Time in s that sessions may go on in a replica that is stopped. Before its "
        "end they are told to go on in another session.",
    )
    autoscaling: LiveAutoscalingSettings | None = Field(
        default=None, description="Scales the number of replicas with the open sessions if set."
    )


class LiveSettings(Section):
    """Transcription while people speak: OpenAI's Realtime protocol and FunASR's."""

    enabled: bool = Field(
        default=False,
        description="Serve live transcription: OpenAI's Realtime protocol at /v1/realtime, and "
        "FunASR's at /v1/realtime/funasr.",
    )
    max_sessions: Advanced[int] = Field(
        default=50, ge=1, description="Maximum number of open sessions of one replica."
    )
    key_max_sessions: Advanced[int | None] = Field(
        default=None,
        ge=1,
        description="Maximum number of open sessions of one API key in each replica; unset for "
        "`live.max_sessions`.",
    )
    partial_interval_s: Advanced[float] = Field(
        default=0.6,
        ge=0.1,
        description="Time in s between two decodes of open speech. Shorter shows text sooner and "
        "costs more: each decode recognizes the open segment from its start.",
    )
    max_segment_s: Advanced[float] = Field(
        default=20.0,
        ge=2,
        description="Length in s at which speech without a pause is cut.",
    )
    max_lag_s: Advanced[float] = Field(
        default=30.0,
        ge=1,
        description="Audio in s of one session that may wait to be processed; more is refused.",
    )
    idle_timeout_s: Advanced[float] = Field(
        default=300.0, gt=0, description="Time in s without audio after which a session ends."
    )
    max_session_s: Advanced[float] = Field(
        default=4 * 3600.0, gt=0, description="Longest session in s."
    )
    client_secret_s: Advanced[float] = Field(
        default=600.0,
        gt=0,
        description="Time in s for which a key of `POST /v1/realtime/client_secrets` opens "
        "sessions.",
    )
    deployment: LiveDeploymentSettings = LiveDeploymentSettings()
