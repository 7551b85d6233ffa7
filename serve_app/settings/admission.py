"""API keys, and limits on the requests in flight."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import Field

from serve_app.core.errors import ConfigurationError
from serve_app.settings.section import Advanced, Section

REFUSAL_HEADROOM = 32
"""Requests that a full ingress replica can refuse at the same time."""


class AuthSettings(Section):
    """API keys."""

    mode: Literal["auto", "keys", "off"] = Field(
        default="auto",
        description="`keys` requires a key of `keys_file`; `off` requires none; `auto` is `off` "
        "where `paraserve serve` listens on a loopback address, and `keys` otherwise (always "
        "under `serve run` and `serve deploy`, where the service cannot see the bind address).",
    )
    keys_file: Path | None = Field(
        default=None,
        description="YAML file of hashed API keys, written by `paraserve keys new`. It is read "
        "again whenever it changes, so keys can be rotated without a restart.",
    )
    keys_grace_s: Advanced[float] = Field(
        default=3600.0,
        ge=0,
        description="Time in s that the last valid keys stay in use when the keys file is missing "
        "or unusable; after it every request is answered with 503.",
    )

    @property
    def demanded(self) -> bool:
        """Whether callers need a key; an `auto` that was not resolved counts as `keys`."""
        return self.mode != "off"

    def resolved(self, bind_host: str) -> AuthSettings:
        """Returns the settings of a service that listens on this address only.

        `auto` becomes `off` on a loopback address. Only the code that starts the listener
        knows the address.
        """
        if self.mode == "auto" and is_loopback(bind_host):
            return self.model_copy(update={"mode": "off"})
        return self

    def check(self) -> None:
        """Checks that there is a keys file if callers need keys.

        Raises:
            ConfigurationError: there is none.
        """
        if self.demanded and self.keys_file is None:
            raise ConfigurationError(
                f"auth.mode is {self.mode} and the service may be reachable from other machines, "
                "so callers need API keys: set auth.keys_file (`paraserve keys new` writes one), "
                "or set auth.mode to off to accept requests without a key"
            )


class AdmissionSettings(Section):
    """Limits of one ingress replica.

    A request waits in the queue while its upload arrives, while `max_running` others are
    processed, or while its bytes or audio would exceed a limit. A request that finds the
    queue full is refused with 429.
    """

    max_running: int = Field(
        default=16,
        ge=1,
        description="Maximum number of requests processed at once by an ingress replica. More "
        "fills larger batches, but needs more memory and slows each request down.",
    )
    max_waiting: int = Field(
        default=64,
        ge=0,
        description="Maximum number of requests in an ingress replica's queue; further ones are "
        "refused with 429. Choose as many as finish within the time that callers are willing to "
        "wait.",
    )
    max_bytes: int = Field(
        default=2 * 2**30,
        ge=1024,
        description="Maximum size of all uploads in flight at an ingress replica, in bytes. It is "
        "also the most that the spool directory holds. At least one upload.",
    )
    max_audio_s: float = Field(
        default=24 * 3600.0,
        gt=0,
        description="Maximum duration of all audio in flight at an ingress replica, in s. At "
        "least `audio.max_duration_s`.",
    )
    key_max_running: Advanced[int | None] = Field(
        default=None,
        ge=1,
        description="Maximum number of requests of one API key processed at once. Unset: three "
        "quarters of `max_running` if the keys file has several keys, else no limit of its own.",
    )
    key_max_waiting: Advanced[int | None] = Field(
        default=None,
        ge=0,
        description="Maximum number of requests of one API key in the queue. Unset: three "
        "quarters of `max_waiting` if the keys file has several keys, else no limit of its own.",
    )
    key_max_bytes: Advanced[int | None] = Field(
        default=None,
        ge=1024,
        description="Maximum size of one API key's uploads in flight, in bytes. Unset: as for "
        "`key_max_running`, but never less than one upload.",
    )
    key_max_audio_s: Advanced[float | None] = Field(
        default=None,
        gt=0,
        description="Maximum duration of one API key's audio in flight, in s. Unset: as for "
        "`key_max_running`, but never less than one recording.",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on this address or name."""
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None)} if host else ()
    except OSError:
        return False
    return bool(addresses) and all(
        ip_address(address.partition("%")[0]).is_loopback for address in addresses
    )
