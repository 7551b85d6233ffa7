"""Who may use the service, and how much of it at once."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import Field

from serve_app.core.errors import ConfigurationError
from serve_app.settings.section import Section

REFUSAL_HEADROOM = 32
"""Requests that an ingress replica can be refusing while it is full."""


class AuthSettings(Section):
    """API keys."""

    mode: Literal["auto", "keys", "off"] = Field(
        default="auto",
        description="`keys` demands a key of `keys_file`; `off` lets everybody in; `auto` is off "
        "while `http.host` is a loopback address, and `keys` otherwise.",
    )
    keys_file: Path | None = Field(
        default=None,
        description="YAML file of hashed keys, as `paraserve keys new` writes it; read again when "
        "it changes, so that keys are rotated without a restart.",
    )

    def demanded(self, host: str) -> bool:
        """True if callers need a key when the service listens on host."""
        return self.mode == "keys" or (self.mode == "auto" and not _is_loopback(host))

    def check(self, host: str) -> None:
        """Refuses to start without keys where keys are demanded.

        Raises:
            ConfigurationError: there is no keys file to ask.
        """
        if self.demanded(host) and self.keys_file is None:
            raise ConfigurationError(
                f"auth.mode is {self.mode} and the service listens on {host}, so callers need API "
                "keys: set auth.keys_file (`paraserve keys new` writes one), or auth.mode off "
                "to let everybody in"
            )


class AdmissionSettings(Section):
    """Limits of one ingress replica; what exceeds them is refused with 429.

    A request over `max_running`, or without room for its bytes or audio, waits in
    line; one that finds the line full is refused.
    """

    max_running: int = Field(default=16, ge=1, description="Requests worked on at once.")
    max_waiting: int = Field(
        default=64, ge=0, description="Requests that may wait in line for their turn."
    )
    max_bytes: int = Field(
        default=512 * 2**20,
        ge=1024,
        description="Bytes of uploads in flight; also the most that the spool directory holds.",
    )
    max_audio_s: float = Field(default=24 * 3600.0, gt=0, description="Seconds of audio in flight.")
    key_max_running: int | None = Field(
        default=None,
        ge=1,
        description="Requests of one key at once; unset for no limit of its own.",
    )
    key_max_waiting: int | None = Field(
        default=None,
        ge=0,
        description="Requests of one key in line; unset for no limit of its own.",
    )
    key_max_bytes: int | None = Field(
        default=None, ge=1024, description="Bytes of one key in flight; unset for no own limit."
    )
    key_max_audio_s: float | None = Field(
        default=None, gt=0, description="Audio of one key in flight in s; unset for no own limit."
    )
    max_retry_after_s: float = Field(
        default=300.0, ge=1, description="Upper bound of the Retry-After that a refusal carries."
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
