"""Recordings that the service downloads itself."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from serve_app.settings.section import Advanced, Section

# Older buckets may have capitals, underscores and up to 255 characters.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")


def is_bucket_name(name: str) -> bool:
    """Returns whether this is a valid bucket name; a valid one cannot change a URL's path."""
    return _BUCKET.fullmatch(name) is not None and ".." not in name


class AudioUrlSettings(Section):
    """The form field `audio_url`, which replaces the upload."""

    enabled: bool = Field(
        default=False,
        description="Accept the field `audio_url` instead of `file`.",
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Hosts that recordings may be fetched from: a name, or `*.example.com` for "
        "all names below it; add `:port` for a port other than the scheme's default.",
    )
    allow_http: Advanced[bool] = Field(
        default=False,
        description="Accept http URLs as well as https.",
    )
    allow_private: bool = Field(
        default=False,
        description="Accept allowed hosts with private or loopback addresses, for a store in your "
        "own network. Link-local addresses, such as those of cloud metadata, are always refused.",
    )
    max_bytes: int = Field(
        default=256 * 2**20,
        ge=1024,
        description="Maximum size of a fetched file in bytes.",
    )
    timeout_s: Advanced[float] = Field(
        default=300.0,
        gt=0,
        description="Maximum duration of a fetch in s.",
    )
    s3_buckets: tuple[str, ...] = Field(
        default=(),
        description="Buckets that `s3://bucket/key` URLs, or https URLs of the store, may name.",
    )
    s3_endpoint: str | None = Field(
        default=None,
        description="URL of an S3-compatible store, such as https://minio.example.com; unset for "
        "AWS. Its host must be in `allowed_hosts` too.",
    )
    s3_region: str = Field(
        default="us-east-1",
        pattern=r"^[a-z0-9-]+$",
        description="Region of the buckets.",
    )
    s3_sign: bool = Field(
        default=False,
        description="Sign requests to the buckets with the credentials that botocore finds. Needs "
        "`pip install 'paraserve[s3]'`.",
    )

    @field_validator("allowed_hosts")
    @classmethod
    def _lower_case(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if "/" in host or not host.strip("*.") or "*" in host.removeprefix("*."):
                raise ValueError(f"{host!r} is neither a host nor *.suffix")
        return tuple(host.lower() for host in hosts)

    @field_validator("s3_buckets")
    @classmethod
    def _are_names(cls, buckets: tuple[str, ...]) -> tuple[str, ...]:
        for bucket in buckets:
            if not is_bucket_name(bucket):
                raise ValueError(f"{bucket!r} is not the name of a bucket")
        return buckets

    @field_validator("s3_endpoint")
    @classmethod
    def _without_slash(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parsed = urlsplit(url)
        if parsed.scheme not in ("https", "http") or not parsed.hostname:
            raise ValueError("s3_endpoint must begin with https:// or http:// and name a host")
        if parsed.username or parsed.password or parsed.query or parsed.fragment:
            raise ValueError("s3_endpoint may have a scheme, host, port and path only")
        if {".", ".."} & set(parsed.path.split("/")) or "\\" in url or "%" in parsed.path:
            raise ValueError("s3_endpoint must not have `..`, `.`, `%` or a backslash in its path")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _has_hosts(self) -> AudioUrlSettings:
        if self.enabled and not self.allowed_hosts:
            raise ValueError("audio_url.enabled needs audio_url.allowed_hosts")
        return self
