"""Who may use the service, and how much of it at once."""

from __future__ import annotations

import socket
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
        description="`keys` demands a key of `keys_file`; `off` lets everybody in; `auto` is `off` "
        "only where `paraserve serve` itself listens, on a loopback address, and `keys` otherwise: "
        "under `serve run` and `serve deploy` too, which listen where Serve is told to.",
    )
    keys_file: Path | None = Field(
        default=None,
        description="YAML file of hashed keys, as `paraserve keys new` writes it; read again when "
        "it changes, so that keys are rotated without a restart.",
    )
    keys_grace_s: float = Field(
        default=3600.0,
        ge=0,
        description="How long the last good keys stay valid, in s, when the keys file has gone or "
        "cannot be used; after that everybody is told 503 until it is restored.",
    )

    @property
    def demanded(self) -> bool:
        """Whether callers need a key. `auto` has been resolved where they need none."""
        return self.mode != "off"

    def resolved(self, bind_host: str) -> AuthSettings:
        """Returns the settings of a service that listens on this address and on no other.

        Only whoever starts the listener can say so; `auto` then becomes `off` on a
        loopback address.
        """
        if self.mode == "auto" and is_loopback(bind_host):
            return self.model_copy(update={"mode": "off"})
        return self

    def check(self) -> None:
        """Refuses to start without keys where keys are demanded.

        Raises:
            ConfigurationError: there is no keys file to ask.
        """
        if self.demanded and self.keys_file is None:
            raise ConfigurationError(
                f"auth.mode is {self.mode} and the service may be reached from elsewhere, so "
                "callers need API keys: set auth.keys_file (`paraserve keys new` writes one), or "
                "auth.mode off to let everybody in"
            )


class AdmissionSettings(Section):
    """Limits of one ingress replica; what exceeds them is refused with 429.

    A request over `max_running`, or without room for its bytes or audio, waits in
    line, and so does one whose upload is still arriving; one that finds the line full
    is refused.
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
        description="Requests of one key at once; unset for three quarters of `max_running` where "
        "the keys file has several keys, and for no limit of its own otherwise.",
    )
    key_max_waiting: int | None = Field(
        default=None,
        ge=0,
        description="Requests of one key in line; unset for three quarters of `max_waiting` where "
        "the keys file has several keys, and for no limit of its own otherwise.",
    )
    key_max_bytes: int | None = Field(
        default=None,
        ge=1024,
        description="Bytes of one key in flight; unset as with `key_max_running`, but never less "
        "than one upload.",
    )
    key_max_audio_s: float | None = Field(
        default=None,
        gt=0,
        description="Audio of one key in flight in s; unset as with `key_max_running`, but never "
        "less than one recording.",
    )
    max_retry_after_s: float = Field(
        default=120.0,
        ge=1,
        description="Upper bound of the Retry-After that a refusal carries. OpenAI's clients "
        "give up on a longer one instead of trying again.",
    )


def is_loopback(host: str) -> bool:
    """Whether nothing but this machine reaches a listener on this address or name."""
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None)} if host else ()
    except OSError:
        return False
    return bool(addresses) and all(
        ip_address(address.partition("%")[0]).is_loopback for address in addresses
    )
