"""Authentication by API keys from a file that may change while the service runs.

`AuthenticationMiddleware` requires a key for every path under /v1 and rejects connections
that are not HTTP.
"""

from __future__ import annotations

import hmac
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, TypeVar

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api.body import RequestBody
from serve_app.api.errors import error_response
from serve_app.api.front import log_refusal
from serve_app.api.request_log import RequestLog, RequestObserver, request_id_of
from serve_app.api.screening import request_id_in
from serve_app.core.errors import (
    ConfigurationError,
    KeyNotAllowed,
    KeysUnavailable,
    ParaserveError,
    Unauthenticated,
)
from serve_app.core.records import ANONYMOUS
from serve_app.scheduling.admission import NO_LIMITS, Limits
from serve_app.settings.keys import KEY_PREFIX, KeyEntry, hash_of, read_keys

_MAX_KEY_CHARS = 256
_RETRY_S = 1.0
_SIGNING_PURPOSE = b"paraserve client secrets, version 1"

_KeysState: TypeAlias = Literal["good", "stale", "expired"]

_T = TypeVar("_T", int, float)


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a request.

    Attributes:
        name: of the API key; never the key.
        weight: the key's share of a busy service.
        limits: bounds of the key.
        max_audio_s_per_month: quota of audio of a calendar month, in s; None for any.
    """

    name: str = ANONYMOUS
    weight: float = 1.0
    limits: Limits = NO_LIMITS
    max_audio_s_per_month: float | None = None


class Authenticator(Protocol):
    def caller_of(self, authorization: str | None) -> Caller:
        """Returns the caller that an Authorization header identifies.

        Raises:
            Unauthenticated: there is no key, or it is unknown.
            KeyNotAllowed: the key is disabled or has expired.
            KeysUnavailable: keys cannot be checked now.
        """
        ...

    def caller_named(self, name: str) -> Caller:
        """Returns the caller whose valid key has this name.

        Raises:
            Unauthenticated: no valid key has it.
            KeysUnavailable: keys cannot be checked now.
        """
        ...

    def signing_secrets(self, name: str) -> tuple[bytes, ...]:
        """Returns what signs for the valid keys of a name, the same in every process.

        The last one signs; each one verifies, so that a signature ends with its key.
        """
        ...

    def stale_s(self) -> float:
        """Returns how long ago the keys were last read successfully, in s."""
        ...


class AllowAll:
    """Accepts every request, as one caller.

    Callers cannot be distinguished: behind the proxy they share its address, and they can forge
    the headers that name another.

    Args:
        limits: of all requests together.
    """

    def __init__(self, limits: Limits = NO_LIMITS) -> None:
        self._caller = Caller(limits=limits)

    def caller_of(self, authorization: str | None) -> Caller:
        # OpenAI's clients always send a key.
        return self._caller

    def caller_named(self, name: str) -> Caller:
        return self._caller

    def signing_secrets(self, name: str) -> tuple[bytes, ...]:
        # Where nobody needs a key, a signature protects nothing.
        return (b"no keys",)

    def stale_s(self) -> float:
        return 0.0


@dataclass(frozen=True, slots=True)
class KeyDefaults:
    """Defaults for keys without limits of their own.

    Attributes:
        limits: of every key.
        shared: further limits if there are several keys, which leave room for the others.
        grace_s: time for which keys stay valid while their file is not.
        counts_usage: whether the service counts what keys use; a file with quotas is not valid
            otherwise.
    """

    limits: Limits = NO_LIMITS
    shared: Limits = NO_LIMITS
    grace_s: float = 3600.0
    counts_usage: bool = False


class KeyFile:
    """Checks keys against a file and rereads it when it changes.

    If the file is missing, empty or invalid, the last valid keys stay in use for a while, so
    that an editing mistake locks nobody out; then all requests are rejected until it is
    restored. Each of these changes is logged once. A file that says `keys: []` is valid: it
    revokes all keys at once.

    Args:
        path: of the keys file.
        defaults: for keys that have no limits of their own.
        logger: never receives a key or a hash.
        clock: returns the present time, in UTC.
        monotonic: returns monotonic time in s.

    Raises:
        ConfigurationError: the file cannot be used.
    """

    def __init__(
        self,
        path: Path,
        defaults: KeyDefaults,
        logger: logging.Logger,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._defaults = defaults
        self._logger = logger
        self._clock = clock
        self._monotonic = monotonic
        self._version = file_version(path)
        self._good_at = self._tried_at = monotonic()
        self._state: _KeysState = "good"
        self._take(self._checked())

    def caller_of(self, authorization: str | None) -> Caller:
        self._follow_file()
        if self._state == "expired":
            raise KeysUnavailable
        entry = self._entry_of(_key_in(authorization))
        if entry.disabled:
            raise KeyNotAllowed(entry.name, "is disabled")
        if entry.expired(self._clock()):
            raise KeyNotAllowed(entry.name, "has expired")
        return self._caller(entry)

    def caller_named(self, name: str) -> Caller:
        entries = self._valid_entries(name)
        if self._state == "expired":
            raise KeysUnavailable
        if not entries:
            raise Unauthenticated("the API key is not valid any more")
        return self._caller(entries[-1])

    def signing_secrets(self, name: str) -> tuple[bytes, ...]:
        return tuple(
            hmac.digest(entry.sha256.encode(), _SIGNING_PURPOSE, "sha256")
            for entry in self._valid_entries(name)
        )

    def stale_s(self) -> float:
        self._follow_file()
        return 0.0 if self._state == "good" else self._monotonic() - self._good_at

    def _valid_entries(self, name: str) -> list[KeyEntry]:
        self._follow_file()
        now = self._clock()
        return [
            entry
            for entry in self._entries
            if entry.name == name and not entry.disabled and not entry.expired(now)
        ]

    def _caller(self, entry: KeyEntry) -> Caller:
        quota_s = entry.limits.max_audio_s_per_month
        return Caller(entry.name, entry.weight, self._limits_of(entry), quota_s)

    def _entry_of(self, key: str) -> KeyEntry:
        presented = hash_of(key)
        found: KeyEntry | None = None
        # Compares all keys even after a match, to keep the time constant.
        for entry in self._entries:
            if hmac.compare_digest(entry.sha256, presented):
                found = entry
        if found is None:
            raise Unauthenticated("the API key is not valid")
        return found

    def _limits_of(self, entry: KeyEntry) -> Limits:
        own, defaults = entry.limits, self._defaults.limits
        shared = self._defaults.shared if self._num_names > 1 else NO_LIMITS
        return Limits(
            max_running=_first(own.max_running, defaults.max_running, shared.max_running),
            max_waiting=_first(own.max_waiting, defaults.max_waiting, shared.max_waiting),
            max_bytes=_first(own.max_bytes, defaults.max_bytes, shared.max_bytes),
            max_audio_s=_first(own.max_audio_s, defaults.max_audio_s, shared.max_audio_s),
            max_storing=shared.max_storing,
        )

    def _follow_file(self) -> None:
        version = file_version(self._path)
        now = self._monotonic()
        if version == self._version and self._state == "good":
            self._good_at = now
            return
        # After a read error, other than invalid content, the file is read again.
        if version != self._version or now - self._tried_at >= _RETRY_S:
            self._version, self._tried_at = version, now
            self._read()
        if self._state == "stale" and now - self._good_at >= self._defaults.grace_s:
            self._state = "expired"
            self._logger.error(
                "the API keys file has been unusable for too long; all requests are refused",
                extra={"path": str(self._path), "keys_grace_s": self._defaults.grace_s},
            )

    def _read(self) -> None:
        try:
            entries = self._checked()
        except ConfigurationError as error:
            if self._state == "good":
                self._state = "stale"
                self._logger.error(
                    "the API keys file cannot be read; the last valid keys stay in use for a while",
                    extra={"error": str(error), "keys_grace_s": self._defaults.grace_s},
                )
            return
        self._state, self._good_at = "good", self._monotonic()
        self._take(entries)
        if not entries:
            self._logger.error(
                "the API keys file lists no keys; all requests are refused",
                extra={"path": str(self._path)},
            )
        else:
            self._logger.info("API keys read", extra={"num_keys": len(entries)})

    def _checked(self) -> tuple[KeyEntry, ...]:
        entries = read_keys(self._path)
        for entry in entries:
            if entry.limits.max_audio_s_per_month is not None and not self._defaults.counts_usage:
                raise ConfigurationError(
                    f"keys file {self._path}: the key {entry.name} has max_audio_s_per_month, "
                    "which needs jobs.enabled: the service counts no usage without it"
                )
        return entries

    def _take(self, entries: tuple[KeyEntry, ...]) -> None:
        self._entries = entries
        self._num_names = len({entry.name for entry in entries if not entry.disabled})


def _key_in(authorization: str | None) -> str:
    scheme, _, key = (authorization or "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise Unauthenticated("an API key is required")
    if not key.startswith(KEY_PREFIX) or len(key) > _MAX_KEY_CHARS:
        raise Unauthenticated("the API key is not valid")
    return key


def file_version(path: Path) -> tuple[int, ...] | None:
    """Returns what changes with the file; links as those of mounted secrets are followed."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size, status.st_dev)


def _first(*values: _T | None) -> _T | None:
    """Returns the first value that is one."""
    return next((value for value in values if value is not None), None)


_PROTECTED = "/v1"
_CALLER = "paraserve.caller"
# Source: RFC 6455, section 7.4.1.
_POLICY_VIOLATION = 1008


class AuthenticationMiddleware:
    """Answers 401 or 403 to requests without a valid key.

    WebSockets and other connections have no routes here and are closed before they are
    accepted.

    Args:
        app: the protected application.
        authenticator: checks the keys.
        logger: for one line per rejection.
        observer: notified of each rejected request.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator,
        logger: logging.Logger,
        observer: RequestObserver,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._logger = logger
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._close(scope, send)
            return
        if not _is_protected(scope):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        log = RequestLog(request_id_of(request), time.monotonic())
        try:
            scope[_CALLER] = self._authenticator.caller_of(request.headers.get("authorization"))
        except ParaserveError as error:
            response = error_response(error)
            log.status, log.code = response.status_code, error.code
            log_refusal(self._logger, log)
            body = RequestBody(request)
            await body.discard()
            body.close()
            try:
                await response(scope, receive, send)
            finally:
                self._observer.ended(log)
        else:
            await self._app(scope, receive, send)

    async def _close(self, scope: Scope, send: Send) -> None:
        log = RequestLog(request_id_in(scope), time.monotonic())
        log.status, log.code = 403, "protocol_not_allowed"
        log_refusal(self._logger, log)
        try:
            if scope["type"] == "websocket":
                # Before it is accepted, servers answer this with 403.
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": ""})
        finally:
            self._observer.ended(log)


def caller_of(request: Request) -> Caller:
    """Returns the caller that the middleware authenticated."""
    caller: Caller = request.scope[_CALLER]
    return caller


def _is_protected(scope: Scope) -> bool:
    # Serve puts its route prefix into both: the path is that of the whole URL.
    path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
    return path == _PROTECTED or path.startswith(f"{_PROTECTED}/")
