"""Who is calling: API keys from a file that may change while the service runs."""

from __future__ import annotations

import hmac
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

from serve_app.core.errors import ConfigurationError, KeyNotAllowed, Unauthenticated
from serve_app.core.limits import NO_LIMITS, Limits
from serve_app.core.origin import ANONYMOUS
from serve_app.settings.keys import KEY_PREFIX, KeyEntry, hash_of, read_keys

_MAX_KEY_CHARS = 256

_T = TypeVar("_T", int, float)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is.

    Attributes:
        name: of the API key; never the key.
        weight: the key's share of a busy service.
        limits: bounds of the key.
    """

    name: str = ANONYMOUS
    weight: float = 1.0
    limits: Limits = NO_LIMITS


class Authenticator(Protocol):
    def caller_of(self, authorization: str | None) -> Caller:
        """Returns who sends this Authorization header.

        Raises:
            Unauthenticated: nobody that is known.
            KeyNotAllowed: somebody whose key is no longer good.
        """
        ...


class Everybody:
    """Lets everybody in, as one caller.

    Args:
        limits: of that caller.
    """

    def __init__(self, limits: Limits = NO_LIMITS) -> None:
        self._caller = Caller(limits=limits)

    def caller_of(self, authorization: str | None) -> Caller:
        # Clients of OpenAI's API always send some key.
        return self._caller


class KeyRing:
    """Knows the keys of a file, and reads it again when it has changed.

    A changed file that cannot be used is told once, as an ERROR, and the keys stay
    as they were.

    Args:
        path: of the keys file.
        defaults: limits of keys that have none of their own.
        logger: never told a key or a hash.
        clock: returns the present time, in UTC.

    Raises:
        ConfigurationError: the file cannot be used.
    """

    def __init__(
        self,
        path: Path,
        defaults: Limits,
        logger: logging.Logger,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._path = path
        self._defaults = defaults
        self._logger = logger
        self._clock = clock
        self._version = _version_of(path)
        self._entries = read_keys(path)

    def caller_of(self, authorization: str | None) -> Caller:
        entry = self._entry_of(_key_in(authorization))
        if entry.disabled:
            raise KeyNotAllowed(entry.name, "is disabled")
        if entry.expired(self._clock()):
            raise KeyNotAllowed(entry.name, "has expired")
        return Caller(entry.name, entry.weight, self._limits_of(entry))

    def _entry_of(self, key: str) -> KeyEntry:
        self._follow_file()
        presented = hash_of(key)
        found: KeyEntry | None = None
        # All of them, whether or not one matched, so that time tells nothing.
        for entry in self._entries:
            if hmac.compare_digest(entry.sha256, presented):
                found = entry
        if found is None:
            raise Unauthenticated("the API key is not known here")
        return found

    def _limits_of(self, entry: KeyEntry) -> Limits:
        own, defaults = entry.limits, self._defaults
        return Limits(
            max_running=_first(own.max_running, defaults.max_running),
            max_waiting=_first(own.max_waiting, defaults.max_waiting),
            max_bytes=_first(own.max_bytes, defaults.max_bytes),
            max_audio_s=_first(own.max_audio_s, defaults.max_audio_s),
        )

    def _follow_file(self) -> None:
        version = _version_of(self._path)
        if version == self._version:
            return
        self._version = version
        try:
            self._entries = read_keys(self._path)
        except ConfigurationError as error:
            self._logger.error("API keys stay as they were", extra={"error": str(error)})
        else:
            self._logger.info("API keys read", extra={"num_keys": len(self._entries)})


def _key_in(authorization: str | None) -> str:
    scheme, _, key = (authorization or "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise Unauthenticated("an API key is required")
    if not key.startswith(KEY_PREFIX) or len(key) > _MAX_KEY_CHARS:
        raise Unauthenticated("the API key is not known here")
    return key


def _version_of(path: Path) -> tuple[int, ...] | None:
    """Returns what changes with the file; links as those of mounted secrets are followed."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size, status.st_dev)


def _first(own: _T | None, default: _T | None) -> _T | None:
    return default if own is None else own
