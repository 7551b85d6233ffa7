"""Fetches a recording from a URL into a spool file."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urljoin

import httpcore

from serve_app.api.addresses import CheckedBackend
from serve_app.api.remote_audio import Target, UrlPolicy
from serve_app.api.spool import SpoolFile
from serve_app.core.errors import (
    EmptyUpload,
    InvalidParameter,
    UploadTooLarge,
    UrlFetchFailed,
    UrlNotAllowed,
)
from serve_app.settings import AudioUrlSettings

_REDIRECTS = {301, 302, 303, 307, 308}
_OK = 200
_STALL_S = 30.0
_MIN_BYTES_PER_S = 1024
"""A host that sends less over `_STALL_S` or longer is given up: its fetch holds a place."""
_HEADERS = ((b"Accept", b"*/*"), (b"Accept-Encoding", b"identity"), (b"User-Agent", b"paraserve"))


class Fetcher(Protocol):
    @property
    def max_bytes(self) -> int:
        """Largest recording that is fetched."""
        ...

    async def fetch(self, url: str, spool: SpoolFile) -> None:
        """Writes the recording that the URL leads to.

        Raises:
            InvalidParameter: it is not a URL.
            UrlNotAllowed: it, or what it redirects to, is not to be fetched.
            UrlFetchFailed: its host does not answer, or not with a file.
            UploadTooLarge: the file is over its limit.
            EmptyUpload: it has no bytes.
        """
        ...


class HttpFetcher:
    """Fetches over HTTP; redirects are followed by hand and checked like the first URL.

    Args:
        settings: what is allowed.
        policy: decides over URLs.
        ssl_context: whom to trust; the system's authorities unless given.
        backend: makes connections; only to checked addresses unless given.
        clock: in seconds, monotonic.
    """

    def __init__(
        self,
        settings: AudioUrlSettings,
        policy: UrlPolicy,
        ssl_context: ssl.SSLContext | None = None,
        backend: httpcore.AsyncNetworkBackend | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._policy = policy
        self._ssl_context = ssl_context or ssl.create_default_context()
        self._backend = backend or CheckedBackend(allow_private=settings.allow_private)

    @property
    def max_bytes(self) -> int:
        return self._settings.max_bytes

    async def fetch(self, url: str, spool: SpoolFile) -> None:
        # Signing may ask the network for credentials.
        target = await asyncio.to_thread(self._policy.requested, url)
        try:
            async with (
                asyncio.timeout(self._settings.timeout_s),
                httpcore.AsyncConnectionPool(
                    ssl_context=self._ssl_context, network_backend=self._backend
                ) as pool,
            ):
                await self._follow(pool, target, spool)
        except TimeoutError:
            limit_s = self._settings.timeout_s
            raise UrlFetchFailed(f"it took longer than {limit_s:g} s") from None
        except httpcore.TimeoutException:
            raise UrlFetchFailed("its host does not answer in time") from None
        except httpcore.ConnectError as error:
            raise UrlFetchFailed(_reason(error)) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol):
            raise UrlFetchFailed("the connection broke off") from None
        if not spool.size_bytes:
            raise EmptyUpload

    async def _follow(
        self, pool: httpcore.AsyncConnectionPool, target: Target, spool: SpoolFile
    ) -> None:
        for _ in range(self._settings.max_redirects + 1):
            async with pool.stream(
                "GET",
                httpcore.URL(
                    scheme=target.scheme, host=target.host, port=target.port, target=target.path
                ),
                headers=[(b"Host", _authority(target)), *_HEADERS],
                extensions={"timeout": {"connect": _STALL_S, "read": _STALL_S, "write": _STALL_S}},
            ) as response:
                if response.status not in _REDIRECTS:
                    await _write(response, spool, self._clock)
                    return
                target = self._next(target, response)
        raise UrlFetchFailed(f"it redirects more than {self._settings.max_redirects} times")

    def _next(self, target: Target, response: httpcore.Response) -> Target:
        location = _header(response, b"location")
        if not location:
            raise UrlFetchFailed("it redirects nowhere")
        base = f"{target.scheme}://{_authority(target).decode()}{target.path.decode('latin-1')}"
        try:
            return self._policy.check(urljoin(base, location))
        except (InvalidParameter, ValueError):
            raise UrlFetchFailed("it redirects to what is not a URL") from None
        except UrlNotAllowed as error:
            raise UrlNotAllowed(f"it redirects elsewhere, and {error.args[0]}") from None


async def _write(response: httpcore.Response, spool: SpoolFile, clock: Callable[[], float]) -> None:
    if response.status != _OK:
        raise UrlFetchFailed(f"its host answers {response.status}")
    if _header(response, b"content-encoding") not in {"", "identity"}:
        raise UrlFetchFailed("its host compresses it although it was asked not to")
    length = _header(response, b"content-length")
    if length.isdecimal() and int(length) > spool.max_bytes:
        raise UploadTooLarge(spool.max_bytes)
    began_s = clock()
    async for chunk in response.aiter_stream():
        spool.write(chunk)
        took_s = clock() - began_s
        if took_s > _STALL_S and spool.size_bytes < took_s * _MIN_BYTES_PER_S:
            raise UrlFetchFailed("its host sends too slowly")


def _authority(target: Target) -> bytes:
    host = f"[{target.host}]" if ":" in target.host else target.host
    return (host if target.default_port else f"{host}:{target.port}").encode("ascii")


def _header(response: httpcore.Response, name: bytes) -> str:
    for found, value in response.headers:
        if found.lower() == name:
            return value.decode("latin-1").strip()
    return ""


def _reason(error: Exception) -> str:
    """Returns our own words for it; those of the system may tell of our network."""
    if isinstance(error.__cause__, ssl.SSLError) or "CERTIFICATE" in str(error).upper():
        return "its certificate is not valid"
    return "its host does not answer"
