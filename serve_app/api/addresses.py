"""Connections that lead to public addresses only.

The name is resolved here, every address that it has is checked, and the connection
goes to a checked address. A second answer of the name server cannot change it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeAlias

import httpcore

from serve_app.core.errors import UrlNotAllowed

_SocketOption: TypeAlias = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)

# Prefixes that carry an IPv4 address; what they lead to depends on the network.
_TRANSLATED = tuple(map(ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))
# The low half of an ISATAP address: this, then an IPv4 address. Source: RFC 5214, section 6.1.
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
# Services of cloud providers that answer to whoever runs on the machine, in ranges that are
# otherwise anybody's: Azure's wire server, AWS's metadata over IPv6, Alibaba's metadata.
_METADATA = frozenset(map(ip_address, ("168.63.129.16", "fd00:ec2::254", "100.100.100.200")))
# Source: RFC 1918, RFC 4193, RFC 6598.
_OWN = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)
# Relays of 6to4, which RFC 7526 gave up.
_RELAYS = ip_network("192.88.99.0/24")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """True if the address is one of the internet and of nobody's own network.

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
    """True if a host of one's own network can have the address.

    Link-local addresses do not count: what answers there speaks to this machine alone, as
    the metadata of cloud providers, with credentials in them.
    """
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return is_private(address.ipv4_mapped)
    if address in _METADATA or address.is_link_local:
        return False
    return address.is_loopback or any(address in network for network in _OWN)


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects as httpcore asks for, once all addresses of the name have passed.

    Args:
        allow_private: let addresses of one's own network pass as well.
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
        # A scope is cut off: such an address is link-local and does not pass anyway.
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
