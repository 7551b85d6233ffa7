"""The file of API keys: it holds hashes and limits, never a key."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from serve_app.core.errors import ConfigurationError
from serve_app.settings.secret_files import read_secret_file, write_secret_file
from serve_app.settings.section import Section

KEY_PREFIX = "psk_"
_KEY_BYTES = 32
_KIND = "keys file"
_EMPTY = "to revoke all keys write 'keys: []'"


class KeyLimits(Section):
    """Limits of one key in each ingress replica; the service's limits are the default.

    `max_audio_s_per_month` is a quota of the key in the whole service, per calendar month in UTC.
    """

    max_running: int | None = Field(default=None, ge=1)
    max_waiting: int | None = Field(default=None, ge=0)
    max_bytes: int | None = Field(default=None, ge=1024)
    max_audio_s: float | None = Field(default=None, gt=0)
    max_audio_s_per_month: float | None = Field(default=None, gt=0)


class KeyEntry(Section):
    """One key. Names may repeat, so that a new key can replace an old one."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    weight: float = Field(default=1.0, gt=0, le=1000)
    limits: KeyLimits = KeyLimits()
    expires: datetime | None = None
    disabled: bool = False

    @field_validator("expires")
    @classmethod
    def _in_utc(cls, expires: datetime | None) -> datetime | None:
        if expires is not None and expires.tzinfo is None:
            return expires.replace(tzinfo=UTC)
        return expires

    def expired(self, now: datetime) -> bool:
        return self.expires is not None and now >= self.expires


class KeysFile(Section):
    keys: tuple[KeyEntry, ...] = ()


def new_key() -> str:
    """Returns a key with 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def hash_of(key: str) -> str:
    """Returns the hash that is stored for a key.

    A fast hash is enough: unlike a password, the key is random and too long to guess.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_keys(path: Path) -> tuple[KeyEntry, ...]:
    """Returns the entries of a keys file.

    Raises:
        ConfigurationError: it cannot be read, has no content or is not a keys file; the
            message never repeats its values.
    """
    keys = read_secret_file(path, _KIND, KeysFile, _EMPTY).keys
    if len({entry.sha256 for entry in keys}) < len(keys):
        raise ConfigurationError(f"{_KIND} {path} has the same hash twice")
    return keys


def add_key(path: Path, entry: KeyEntry) -> None:
    """Adds an entry to a keys file. A new file is readable by its owner only.

    Raises:
        ConfigurationError: the file exists and cannot be read, or cannot be written.
    """
    keys = read_keys(path) if path.exists() and path.stat().st_size else ()
    write_secret_file(path, {"keys": [as_yaml(key) for key in (*keys, entry)]})


def as_yaml(entry: KeyEntry) -> dict[str, Any]:
    """Returns the entry as written to a file, without defaults."""
    return entry.model_dump(exclude_defaults=True, mode="json")
