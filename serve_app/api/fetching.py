"""Fetches a recording from a URL into a spool file, from public addresses only.

The host name is resolved here, each of its addresses is checked, and the connection goes to a
checked address, so that a second DNS answer cannot redirect it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Protocol, TypeAlias
from urllib.parse import urljoin

import httpcore

from serve_app.api.remote_audio import Target, UrlPolicy
from serve_app.api.spool import SpoolFile
from serve_app.core.errors import (
    EmptyUpload,
    InvalidParameter,
    UrlFetchFailed,
    UrlNotAllowed,
)
from serve_app.settings import AudioUrlSettings

_REDIRECTS = {301, 302, 303, 307, 308}
_OK = 200
_STALL_S = 30.0
MAX_REDIRECTS = 3
"""Redirects that are followed; each target is checked again. Object stores need one or two."""
_MIN_BYTES_PER_S = 1024
"""A fetch below this rate over `_STALL_S` or longer is canceled: it occupies a slot."""
_HEADERS = ((b"Accept", b"*/*"), (b"Accept-Encoding", b"identity"), (b"User-Agent", b"paraserve"))


class Fetcher(Protocol):
    @property
    def max_bytes(self) -> int:
        """Largest recording that is fetched."""
        ...

    async def fetch(self, url: str, spool: SpoolFile) -> None:
        """Downloads the recording at a URL.

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
        settings: limits and allowed hosts.
        policy: checks URLs.
        ssl_context: trusted authorities; the system's by default.
        backend: makes connections; by default only to checked addresses.
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
        # Signing may fetch credentials from the network.
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
            raise UrlFetchFailed("its host did not answer in time") from None
        except httpcore.ConnectError as error:
            raise UrlFetchFailed(_reason(error)) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol):
            raise UrlFetchFailed("the connection was lost") from None
        if not spool.size_bytes:
            raise EmptyUpload

    async def _follow(
        self, pool: httpcore.AsyncConnectionPool, target: Target, spool: SpoolFile
    ) -> None:
        for _ in range(MAX_REDIRECTS + 1):
            async with pool.stream(
                "GET",
                httpcore.URL(
                    scheme=target.scheme, host=target.host, port=target.port, target=target.path
                ),
                headers=[(b"Host", target.authority), *_HEADERS],
                extensions={"timeout": {"connect": _STALL_S, "read": _STALL_S, "write": _STALL_S}},
            ) as response:
                if response.status not in _REDIRECTS:
                    await _write(response, spool, self._clock)
                    return
                target = self._next(target, response)
        raise UrlFetchFailed(f"it redirects more than {MAX_REDIRECTS} times")

    def _next(self, target: Target, response: httpcore.Response) -> Target:
        location = _header(response, b"location")
        if not location:
            raise UrlFetchFailed("it redirects without a Location header")
        base = f"{target.scheme}://{target.authority.decode()}{target.path.decode('latin-1')}"
        try:
            return self._policy.check(urljoin(base, location))
        except (InvalidParameter, ValueError):
            raise UrlFetchFailed("it redirects to an invalid URL") from None
        except UrlNotAllowed as error:
            raise UrlNotAllowed(f"it redirects to another URL, and {error.args[0]}") from None


async def _write(response: httpcore.Response, spool: SpoolFile, clock: Callable[[], float]) -> None:
    if response.status != _OK:
        raise UrlFetchFailed(f"its host answered with status {response.status}")
    if _header(response, b"content-encoding") not in {"", "identity"}:
        raise UrlFetchFailed("its host sent it compressed although it was asked not to")
    length = _header(response, b"content-length")
    if length.isdecimal() and int(length) > spool.max_bytes:
        raise spool.too_large()
    began_s = clock()
    async for chunk in response.aiter_stream():
        spool.write(chunk)
        took_s = clock() - began_s
        if took_s > _STALL_S and spool.size_bytes < took_s * _MIN_BYTES_PER_S:
            raise UrlFetchFailed("its host sends too slowly")


def _header(response: httpcore.Response, name: bytes) -> str:
    for found, value in response.headers:
        if found.lower() == name:
            return value.decode("latin-1").strip()
    return ""


def _reason(error: Exception) -> str:
    """Returns a message of our own; the system's may reveal details of our network."""
    if isinstance(error.__cause__, ssl.SSLError) or "CERTIFICATE" in str(error).upper():
        return "its certificate is not valid"
    return "its host does not answer"


_SocketOption: TypeAlias = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)

# Prefixes that contain an IPv4 address; their target depends on the network.
_TRANSLATED = tuple(map(ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))
# The low half of an ISATAP address: this, then an IPv4 address. Source: RFC 5214, section 6.1.
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
# Services of cloud providers for any process on the machine, in ranges that are public
# otherwise: Azure's wire server, AWS's metadata over IPv6, Alibaba's metadata.
_METADATA = frozenset(map(ip_address, ("168.63.129.16", "fd00:ec2::254", "100.100.100.200")))
# Source: RFC 1918, RFC 4193, RFC 6598.
_OWN = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)
# Relays of 6to4, deprecated by RFC 7526.
_RELAYS = ip_network("192.88.99.0/24")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """True if the address is public and not in any private network.

    Source: the IANA special-purpose address registries, as `ipaddress` has them.
    """
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in _TRANSLATED) or address.is_site_local:
            return False
        if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
            return False
    if address in _METADATA or address in _RELAYS:
        return False
    return (
        address.is_global
        and not address.is_private
        and not address.is_loopback
        and not address.is_link_local
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
    )


def is_private(address: IPv4Address | IPv6Address) -> bool:
    """True if a host in a private network can have the address.

    Link-local addresses do not count: what answers there speaks to this machine alone, as
    the metadata of cloud providers, with credentials in them.
    """
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return is_private(address.ipv4_mapped)
    if address in _METADATA or address.is_link_local:
        return False
    return address.is_loopback or any(address in network for network in _OWN)


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects for httpcore after all addresses of the host name have passed the check.

    Args:
        allow_private: accept addresses of private networks as well.
        backend: makes the connections.
    """

    def __init__(
        self, *, allow_private: bool, backend: httpcore.AsyncNetworkBackend | None = None
    ) -> None:
        self._allow_private = allow_private
        self._backend = backend or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[_SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._addresses_of(host, port)
        except TimeoutError:
            raise httpcore.ConnectTimeout("the name was not resolved in time") from None
        failure: Exception | None = None
        for address in addresses:
            try:
                return await self._backend.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except httpcore.ConnectError as error:
                failure = error
        raise httpcore.ConnectError("no address of the host answers") from failure

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _addresses_of(self, host: str, port: int) -> list[IPv4Address | IPv6Address]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host.strip("[]"), port, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError):
            raise httpcore.ConnectError("the host's name is not known") from None
        # The scope is removed: such an address is link-local and is rejected anyway.
        addresses = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
        if not addresses:
            raise httpcore.ConnectError("the host's name has no address")
        for address in addresses:
            if not is_public(address) and not (self._allow_private and is_private(address)):
                kind = "that is not public"
                if self._allow_private:
                    kind = "that is neither public nor private"
                raise UrlNotAllowed(f"its host has an address {kind}")
        return addresses
