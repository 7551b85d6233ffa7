"""The HTTP side of the service, the Ray cluster under it, and its traces."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from serve_app.settings.deployments import IngressDeploymentSettings
from serve_app.settings.section import Advanced, Section

_HOST = r"^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$|^\[[0-9A-Fa-f:.]+\]$"
_ORIGIN = r"^\*$|^https?://[A-Za-z0-9_.\[\]:-]+$"


class HttpSettings(Section):
    """The listener: address, connections, and who may call from where."""

    host: str = Field(
        default="127.0.0.1",
        description="Address that the HTTP proxy listens on. 0.0.0.0 makes the service reachable "
        "from other machines.",
    )
    port: int = Field(
        default=8000,
        ge=1,
        le=65535,
        description="Port that the HTTP proxy listens on.",
    )
    haproxy: Advanced[bool] = Field(
        default=True,
        description="Use HAProxy instead of Ray's Python proxy. It streams uploads and needs a "
        "tenth of the CPU.",
    )
    allowed_hosts: tuple[Annotated[str, Field(pattern=_HOST)], ...] = Field(
        default=(),
        description="Host names by which callers may address the service (Host header), "
        "`*.example.com` for all names below one; others are answered with 421. Loopback "
        "addresses, `localhost` and `http.host` are always allowed. Empty allows any name.",
    )
    cors_origins: tuple[Annotated[str, Field(pattern=_ORIGIN)], ...] = Field(
        default=(),
        description="Origins whose web pages may call the API from a browser, such as "
        "`https://app.example.com`, or `*` for all.",
    )
    unknown_fields: Advanced[Literal["ignore", "refuse"]] = Field(
        default="ignore",
        description="Unknown form fields of a request: `ignore` lists them in the header "
        "`X-Paraserve-Ignored-Fields`, since clients of other servers send many; `refuse` answers "
        "400, for callers who want every mistake reported.",
    )
    header_timeout_s: Advanced[int] = Field(
        default=10,
        ge=1,
        description="Maximum time in s for the complete header of a request to arrive. This "
        "setting and the next three need HAProxy.",
    )
    idle_timeout_s: Advanced[int] = Field(
        default=60,
        ge=1,
        description="Time in s after which a connection is closed on which the client neither "
        "sends what is expected nor reads the response. A client that waits for its transcript is "
        "not idle.",
    )
    max_connections: Advanced[int] = Field(
        default=16384,
        ge=16,
        description="Maximum number of connections; lower if the process's limit of open files is "
        "lower.",
    )
    max_connections_per_address: Advanced[int] = Field(
        default=1024,
        ge=0,
        description="Maximum number of connections from one address; loopback addresses are "
        "exempt. 0 for no limit, for example behind a load balancer.",
    )
    drain_timeout_s: float | None = Field(
        default=None,
        ge=0,
        description="Maximum time in s that `paraserve serve` waits for running requests when it "
        "is stopped; unset for `ingress.request_timeout_s`.",
    )


class ClusterSettings(Section):
    """The Ray cluster of `paraserve serve`; `serve run` uses its own."""

    address: str | None = Field(
        default=None,
        description="Address of a running cluster (`auto`, or `ray://...`); unset to start one on "
        "this machine.",
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address of this machine that the ports of a cluster started here listen on: "
        "those of Ray, of replicas and of the metrics. An address other than loopback lets other "
        "machines scrape the metrics.",
    )
    start_timeout_s: Advanced[float] = Field(
        default=600.0,
        gt=0,
        description="Maximum time in s until the service is ready. Raise it for large models on "
        "slow disks.",
    )
    num_cpus: int | None = Field(
        default=None,
        gt=0,
        description="Number of cores that a cluster started here offers; unset for all. It may "
        "exceed the number of real cores, since reservations are logical.",
    )
    object_store_bytes: int = Field(
        default=512 * 2**20,
        ge=80 * 2**20,
        description="Shared memory in bytes of a cluster started here. It holds the uploads and "
        "chunks in flight.",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port on `cluster.host` on which a cluster started here serves Prometheus "
        "metrics; unset for any free port.",
    )


class IngressSettings(Section):
    """The ingress: deadlines, uploads and model names."""

    deployment: IngressDeploymentSettings = IngressDeploymentSettings()
    request_timeout_s: float = Field(
        default=3600.0,
        gt=0,
        description="Deadline of a request in s, from its arrival to the end of its transcript, "
        "upload and queueing included. A caller may set another one with the header "
        "`X-Paraserve-Timeout-S`.",
    )
    max_request_timeout_s: Advanced[float] = Field(
        default=4 * 3600.0,
        gt=0,
        description="Maximum deadline that a caller may ask for, in s.",
    )
    min_upload_bytes_per_s: Advanced[float] = Field(
        default=4096.0,
        gt=0,
        description="Minimum upload rate in bytes per second, on average over `upload_grace_s`; "
        "slower uploads are answered with 408. Lower it for callers on very slow connections.",
    )
    upload_grace_s: Advanced[float] = Field(
        default=30.0,
        gt=0,
        description="Time in s that an upload may stall before it is refused as too slow.",
    )
    model_aliases: tuple[str, ...] = Field(
        default=(
            "gpt-transcribe",
            "whisper-1",
            "gpt-4o-transcribe",
            "gpt-4o-mini-transcribe",
            "gpt-4o-transcribe-diarize",
        ),
        description="Further values of the field `model` that select the default pack, since many "
        "clients send a fixed one. A date suffix (`-2025-12-15`) is ignored. FunASR's names of "
        "Paraformer are accepted where one is served.",
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
        description="URL that accepts traces as OTLP over HTTP, such as "
        "http://collector:4318/v1/traces; unset for no traces.",
    )
    sample_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of requests that are traced, from 0 to 1.",
    )
