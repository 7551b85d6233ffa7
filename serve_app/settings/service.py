"""Where the service listens, and what its ingress does."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from serve_app.settings.deployments import IngressDeployment
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


class ClusterSettings(Section):
    """The Ray cluster that `paraserve serve` runs on; `serve run` brings its own."""

    address: str | None = Field(
        default=None,
        description="Address of a running cluster (`auto`, or `ray://...`); unset to start one "
        "on this machine.",
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
        description="Port on which a cluster started here serves its metrics to Prometheus, on "
        "all interfaces; unset for one that is free.",
    )


class IngressSettings(Section):
    """The HTTP side."""

    deployment: IngressDeployment = IngressDeployment()
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
