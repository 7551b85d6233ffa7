"""What the service tells of itself."""

from __future__ import annotations

from pydantic import Field

from serve_app.settings.section import Section


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
