"""Recordings that the service fetches itself."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from serve_app.settings.section import Section

# Also what older buckets are called: capitals, underscores, up to 255 characters.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")


def is_bucket_name(name: str) -> bool:
    """Returns whether a bucket can have the name; one that can has no meaning in a path."""
    return _BUCKET.fullmatch(name) is not None and ".." not in name


class AudioUrlSettings(Section):
    """The form field `audio_url`, which stands in for an upload."""

    enabled: bool = Field(
        default=False, description="Accept `audio_url` instead of `file`; off by default."
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Hosts that may be fetched from: an exact name, or `*.example.com` for the "
        "names below it; with `:port` for a port that is not the scheme's own.",
    )
    allow_http: bool = Field(default=False, description="Accept http as well as https.")
    allow_private: bool = Field(
        default=False,
        description="Let allowed hosts have private or loopback addresses, for a store inside of "
        "the own network. Link-local addresses, those of cloud metadata among them, stay refused.",
    )
    max_bytes: int = Field(
        default=256 * 2**20, ge=1024, description="Largest file that is fetched, in bytes."
    )
    timeout_s: float = Field(default=300.0, gt=0, description="Longest time of a fetch in s.")
    max_redirects: int = Field(
        default=3, ge=0, le=10, description="Redirects that are followed; each is checked anew."
    )
    s3_buckets: tuple[str, ...] = Field(
        default=(),
        description="Buckets that `s3://bucket/key` may name, and that an https URL of the store "
        "may have in its path; none by default.",
    )
    s3_endpoint: str | None = Field(
        default=None,
        description="URL of an S3-compatible store, as https://minio.example.com; unset for AWS. "
        "Its host must be among `allowed_hosts` as well.",
    )
    s3_region: str = Field(
        default="us-east-1", pattern=r"^[a-z0-9-]+$", description="Region of the buckets."
    )
    s3_sign: bool = Field(
        default=False,
        description="Sign requests to the buckets with the credentials that botocore finds; "
        "needs `pip install paraserve[s3]`.",
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
            raise ValueError("s3_endpoint is scheme, host, port and path, nothing else")
        if {".", ".."} & set(parsed.path.split("/")) or "\\" in url or "%" in parsed.path:
            raise ValueError("s3_endpoint has a path that is not plain")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _has_hosts(self) -> AudioUrlSettings:
        if self.enabled and not self.allowed_hosts:
            raise ValueError("audio_url.enabled needs audio_url.allowed_hosts")
        return self
