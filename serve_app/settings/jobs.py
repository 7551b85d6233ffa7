"""Jobs: where they are stored, how many run, and how long their results stay."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from serve_app.core.paths import default_jobs_dir
from serve_app.settings.deployments import DeploymentSettings
from serve_app.settings.section import Advanced, Section

_DAY_S = 86_400.0
_RUNNER_CPUS = 0.1
_RUNNER_SHUTDOWN_S = 30.0


class JobSettings(Section):
    """Asynchronous transcription: `POST /v1/jobs`; needs `pip install 'paraserve[jobs]'`."""

    enabled: bool = Field(
        default=False,
        description="Serve jobs under /v1/jobs, and count the audio that each API key uses.",
    )
    storage: str = Field(
        default_factory=lambda: str(default_jobs_dir()),
        description="Directory or fsspec URL, such as `s3://bucket/jobs`, of recordings and "
        "results. Every replica reads and writes it: on several nodes it must be shared.",
    )
    database_url: Advanced[SecretStr | None] = Field(
        default=None,
        description="`postgresql://user:password@host/database`, or `sqlite:///path` for one node. "
        "Unset: a SQLite file in `jobs.storage`, which must be a local directory then.",
    )
    database_url_file: Path | None = Field(
        default=None,
        description="File that holds the value of `jobs.database_url`, such as a mounted Secret.",
    )
    webhook_secrets_file: Advanced[Path | None] = Field(
        default=None,
        description="YAML file of the secrets that sign webhooks, by the name of the API key; "
        "`paraserve keys webhook-secret` writes it. Without it, `webhook_url` is refused.",
    )
    webhook_hosts: Advanced[tuple[str, ...]] = Field(
        default=("*",),
        description="Hosts that webhooks may be sent to, in the form of "
        "`audio_url.allowed_hosts`; `*` for any public one.",
    )
    webhook_allow_private: Advanced[bool] = Field(
        default=False,
        description="Send webhooks to private and loopback addresses as well, and over http. For "
        "receivers in your own network.",
    )
    max_running: Advanced[int] = Field(
        default=2,
        ge=1,
        description="Number of jobs that one runner works on at once. Requests run before jobs "
        "whatever the number.",
    )
    max_queued: Advanced[int] = Field(
        default=10_000, ge=1, description="Maximum number of queued jobs of one API key."
    )
    max_attempts: Advanced[int] = Field(
        default=3,
        ge=1,
        description="Number of runners that may be lost with a job before it fails.",
    )
    max_upload_bytes: Advanced[int] = Field(
        default=8 * 2**30,
        ge=1024,
        description="Maximum size in bytes of a recording that is uploaded in parts.",
    )
    lease_s: Advanced[float] = Field(
        default=30.0,
        ge=1,
        description="Time in s after which the job of a runner that is gone goes to another.",
    )
    checkpoint_audio_s: Advanced[float] = Field(
        default=300.0,
        gt=0,
        description="Seconds of recognized audio after which a job's progress is stored; a job "
        "that is taken over goes on from there.",
    )
    keep_audio_s: Advanced[float] = Field(
        default=_DAY_S,
        ge=0,
        description="Time in s that the recording of an ended job is kept.",
    )
    keep_results_s: float = Field(
        default=7 * _DAY_S,
        ge=60,
        description="Time in s that an ended job and its result are kept.",
    )
    autoscaling_weight: Advanced[float] = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of the audio of queued jobs that counts when recognizers are scaled; "
        "with 0 jobs use only what requests leave idle.",
    )
    num_runners: Advanced[int] = Field(
        default=1,
        ge=1,
        description="Number of runner replicas. A runner computes little, it calls the other "
        "stages; a second one takes over at once where a node is lost.",
    )

    @property
    def deployment(self) -> DeploymentSettings:
        """Size of the deployment that runs the jobs."""
        return DeploymentSettings(
            num_replicas=self.num_runners,
            num_cpus=_RUNNER_CPUS,
            graceful_shutdown_timeout_s=_RUNNER_SHUTDOWN_S,
        )

    @model_validator(mode="after")
    def _one_database(self) -> JobSettings:
        if self.database_url is not None and self.database_url_file is not None:
            raise ValueError("give database_url or database_url_file, not both")
        is_remote = "://" in self.storage and not self.storage.startswith("file://")
        if is_remote and self.database_url is None and self.database_url_file is None:
            raise ValueError(
                "jobs.storage is not a local directory, so jobs.database_url is needed"
            )
        return self
