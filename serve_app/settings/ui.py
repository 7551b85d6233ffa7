"""The web page, which is a client of the HTTP API in its own deployment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from serve_app.settings.section import Advanced, Section


class UiSettings(Section):
    """The web page; needs `pip install 'paraserve[ui]'`."""

    enabled: bool = Field(
        default=False,
        description="Serve the web page, as a second application beside the API. Needs `pip "
        "install 'paraserve[ui]'`.",
    )
    route_prefix: str = Field(
        default="/ui",
        pattern=r"^/[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$",
        description="Path of the page below the service's address.",
    )
    root_path: str | None = Field(
        default=None,
        pattern=r"^(/[A-Za-z0-9_.-]+)+$",
        description="Path of the page as browsers see it, if a reverse proxy serves it under "
        "another path than `ui.route_prefix`.",
    )
    api_url: Advanced[str | None] = Field(
        default=None,
        pattern=r"^https?://",
        description="Address of the API that the page calls, as seen from its replica; unset for "
        "this service. Users' API keys are sent there.",
    )
    max_running: int = Field(
        default=8,
        ge=1,
        description="Maximum number of recordings that the page sends at once, of all users.",
    )
    max_waiting: Advanced[int] = Field(
        default=32,
        ge=1,
        description="Maximum number of recordings in the page's queue; further ones are refused.",
    )
    max_upload_bytes: Advanced[int | None] = Field(
        default=None,
        ge=1024,
        description="Maximum size of a file on the page in bytes; unset for "
        "`audio.max_upload_bytes`.",
    )
    max_stored_bytes: Advanced[int] = Field(
        default=2 * 2**30,
        ge=1024,
        description="Maximum size in bytes of all uploads on the page's disk, partial ones "
        "included; further ones are refused. At least one upload. One visitor may use a quarter "
        "of it, and always one upload.",
    )
    upload_dir: Advanced[Path | None] = Field(
        default=None,
        description="Directory for uploads until their request ends, kept as unnamed files; unset "
        "for the system's temporary directory.",
    )
    num_cpus: Advanced[float] = Field(
        default=0.25,
        ge=0,
        description="CPU cores that Ray reserves for the page's only replica.",
    )

    @field_validator("api_url")
    @classmethod
    def _without_slash(cls, api_url: str | None) -> str | None:
        return None if api_url is None else api_url.rstrip("/")

    @model_validator(mode="after")
    def _one_upload_fits(self) -> UiSettings:
        if self.max_upload_bytes is not None and self.max_upload_bytes > self.max_stored_bytes:
            raise ValueError("max_stored_bytes is less than max_upload_bytes")
        return self
