"""Live transcription: sessions, and how often open speech is decoded."""

from __future__ import annotations

from pydantic import Field

from serve_app.settings.deployments import DeploymentSettings
from serve_app.settings.section import Advanced, Section


class LiveDeploymentSettings(DeploymentSettings):
    max_ongoing_requests: Advanced[int] = Field(
        default=256, ge=1, description="Number of sessions and requests that a replica holds."
    )


class LiveSettings(Section):
    """Transcription while people speak: `/v1/realtime` and FunASR's WebSocket protocol."""

    enabled: bool = Field(
        default=False,
        description="Serve live transcription: OpenAI's Realtime protocol at /v1/realtime, and "
        "FunASR's at /v1/funasr.",
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
