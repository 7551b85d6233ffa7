"""The web page: a client of the HTTP API in a deployment of its own."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from serve_app.settings.section import Section


class UiSettings(Section):
    """The web page; needs `pip install 'paraserve[ui]'`."""

    enabled: bool = Field(
        default=False,
        description="Serve the web page too, as an application of its own beside the API.",
    )
    route_prefix: str = Field(
        default="/ui",
        pattern=r"^/[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$",
        description="Path of the page under the service's address.",
    )
    root_path: str | None = Field(
        default=None,
        pattern=r"^(/[A-Za-z0-9_.-]+)+$",
        description="Path of the page as browsers see it, if a reverse proxy serves it under "
        "another one than `ui.route_prefix`.",
    )
    api_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Address of the API that the page uses, as seen from its replica; unset for "
        "the service's own. The callers' keys are sent there.",
    )
    max_running: int = Field(
        default=8, ge=1, description="Recordings of all users that the page sends at once."
    )
    max_waiting: int = Field(
        default=32, ge=1, description="Recordings that may wait for that; more are refused."
    )
    max_upload_bytes: int | None = Field(
        default=None,
        ge=1024,
        description="Largest file that the page takes, in bytes; unset for "
        "`audio.max_upload_bytes`.",
    )
    max_stored_bytes: int = Field(
        default=2 * 2**30,
        ge=1024,
        description="Bytes of uploads that lie on the page's disk at once, those under way "
        "included; more are refused. At least one upload. One visitor gets a quarter of it, "
        "and always room for one upload.",
    )
    upload_dir: Path | None = Field(
        default=None,
        description="Where uploads lie until their request ends; unset for the system's "
        "temporary directory. They are files without names, so listing it shows none of them.",
    )
    keep_upload_s: int = Field(
        default=3600,
        ge=60,
        description="Age in s at which an upload whose request never began is deleted.",
    )
    num_cpus: float = Field(
        default=0.25, ge=0, description="Cores that Ray reserves for the page's one replica."
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
