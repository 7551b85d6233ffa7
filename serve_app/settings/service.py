"""Where the service listens, and what its ingress does.

What the service tells of itself.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from serve_app.settings.deployments import IngressDeploymentSettings
from serve_app.settings.section import Section

_HOST = r"^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$|^\[[0-9A-Fa-f:.]+\]$"
_ORIGIN = r"^\*$|^https?://[A-Za-z0-9_.\[\]:-]+$"


class HttpSettings(Section):
    """Where the service listens."""

    host: str = Field(default="127.0.0.1", description="Address of the HTTP proxy.")
    port: int = Field(default=8000, ge=1, le=65535, description="Port of the HTTP proxy.")
    haproxy: bool = Field(
        default=True,
        description="Use HAProxy instead of Ray's Python proxy: uploads pass it in a stream "
        "and it takes a tenth of the CPU.",
    )
    allowed_hosts: tuple[Annotated[str, Field(pattern=_HOST)], ...] = Field(
        default=(),
        description="Names by which callers may address the service (its Host header), "
        "`*.example.com` for all below one; others are told 421. Loopback addresses, `localhost` "
        "and `http.host` always pass. Empty for any name.",
    )
    cors_origins: tuple[Annotated[str, Field(pattern=_ORIGIN)], ...] = Field(
        default=(),
        description="Origins whose web pages may call the API from a browser, as "
        "`https://app.example.com`, or `*` for all; empty for none.",
    )
    unknown_fields: Literal["ignore", "refuse"] = Field(
        default="ignore",
        description="What becomes of a request's fields that are unknown: `ignore` names them in "
        "the header `X-Paraserve-Ignored-Fields`, as clients of other servers send many; `refuse` "
        "answers 400, for callers who want every mistake reported.",
    )
    header_timeout_s: int = Field(
        default=10,
        ge=1,
        description="Within which the whole header of a request must arrive, in s. HAProxy only, "
        "as the three below.",
    )
    idle_timeout_s: int = Field(
        default=60,
        ge=1,
        description="After which a connection is closed on which the client neither sends what "
        "is awaited nor reads what is sent, in s. A client that waits for its text is not idle.",
    )
    max_connections: int = Field(
        default=16384,
        ge=16,
        description="Connections at once; fewer where the process may not open so many files.",
    )
    max_connections_per_address: int = Field(
        default=1024,
        ge=0,
        description="Connections at once from one address that is not a loopback one; 0 for no "
        "such limit, as behind a load balancer that all clients come through.",
    )
    drain_timeout_s: float | None = Field(
        default=None,
        ge=0,
        description="How long `paraserve serve` waits, once it is told to stop, for the requests "
        "under way, in s; unset for `ingress.request_timeout_s`.",
    )


class ClusterSettings(Section):
    """The Ray cluster that `paraserve serve` runs on; `serve run` brings its own."""

    address: str | None = Field(
        default=None,
        description="Address of a running cluster (`auto`, or `ray://...`); unset to start one "
        "on this machine.",
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address of this machine on which the ports of a cluster started here listen: "
        "Ray's own, those of replicas, its metrics. Another than a loopback address lets other "
        "machines scrape the metrics.",
    )
    start_timeout_s: float = Field(
        default=600.0,
        gt=0,
        description="How long a start may take until the service is ready, in s; longer for large "
        "models on slow disks.",
    )
    num_cpus: int | None = Field(
        default=None,
        gt=0,
        description="Cores that a cluster started here offers; unset for all. It may be more "
        "than there are, since reservations are logical.",
    )
    object_store_bytes: int = Field(
        default=512 * 2**20,
        ge=80 * 2**20,
        description="Shared memory of a cluster started here, in bytes. It holds the uploads "
        "and chunks in flight.",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port on which a cluster started here serves its metrics to Prometheus, at "
        "`cluster.host`; unset for one that is free.",
    )


class IngressSettings(Section):
    """The HTTP side."""

    deployment: IngressDeploymentSettings = IngressDeploymentSettings()
    request_timeout_s: float = Field(
        default=3600.0,
        gt=0,
        description="Deadline of a request in s, from its arrival to the end of its text; its "
        "upload and its time in line count. A caller may set another with the header "
        "`X-Paraserve-Timeout-S`.",
    )
    max_request_timeout_s: float = Field(
        default=4 * 3600.0, gt=0, description="Longest deadline that a caller may ask for, in s."
    )
    min_upload_bytes_per_s: float = Field(
        default=4096.0,
        gt=0,
        description="Bytes per second that a caller must send while its upload is read, on "
        "average over `upload_grace_s`; slower ones are told 408. Lower it for callers on very "
        "slow lines.",
    )
    upload_grace_s: float = Field(
        default=30.0,
        gt=0,
        description="How long an upload may stand still, in s, before it is refused as too slow.",
    )
    model_aliases: tuple[str, ...] = Field(
        default=(
            "gpt-transcribe",
            "whisper-1",
            "gpt-4o-transcribe",
            "gpt-4o-mini-transcribe",
            "gpt-4o-transcribe-diarize",
        ),
        description="Further values of `model` that mean the pack that is served, since many "
        "clients send a fixed one; a date behind one (`-2025-12-15`) does not count. FunASR's "
        "names of Paraformer are understood where one is served.",
    )

    @model_validator(mode="after")
    def _timeouts_ordered(self) -> IngressSettings:
        if self.request_timeout_s > self.max_request_timeout_s:
            raise ValueError("request_timeout_s is larger than max_request_timeout_s")
        return self


class TracingSettings(Section):
    """OpenTelemetry traces; off without an endpoint."""

    otlp_endpoint: str | None = Field(
        default=None,
        description="URL that takes OTLP over HTTP, as http://collector:4318/v1/traces; unset for "
        "no traces.",
    )
    sample_ratio: float = Field(
        default=1.0, ge=0, le=1, description="Share of requests that are traced."
    )
