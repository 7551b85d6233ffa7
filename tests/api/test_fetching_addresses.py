"""Connections go to addresses that were checked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

import httpcore
import pytest

from serve_app.api.fetching import CheckedBackend, is_public
from serve_app.core.errors import UrlNotAllowed


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "2001::1",
        "fec0::1",
        "2a00:1450::5efe:127.0.0.1",
        "2a00:1450::200:5efe:10.0.0.1",
        "168.63.129.16",
        "100.100.100.200",
        "192.88.99.1",
        "fe80::a9fe:a9fe",
    ],
)
def test_addresses_of_a_network_s_own_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


class RecordingBackend(httpcore.AsyncNetworkBackend):
    """Refuses every connection, and remembers where it was to lead."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.asked.append((host, port))
        raise httpcore.ConnectError


def resolve_to(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
    """Has the name server give one answer after the other, the last one for ever."""
    remaining = list(answers)

    async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        addresses = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


async def test_connection_goes_to_the_address_that_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A name that changes its mind between the check and the connection.
    resolve_to(monkeypatch, ["8.8.8.8"], ["127.0.0.1"])
    inner = RecordingBackend()
    backend = CheckedBackend(allow_private=False, backend=inner)
    with pytest.raises(httpcore.ConnectError):
        await backend.connect_tcp("rebinding.example.com", 443)
    assert inner.asked == [("8.8.8.8", 443)]


async def test_one_private_address_among_public_ones_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve_to(monkeypatch, ["8.8.8.8", "10.0.0.1"])
    inner = RecordingBackend()
    with pytest.raises(UrlNotAllowed, match="not public"):
        await CheckedBackend(allow_private=False, backend=inner).connect_tcp("h", 443)
    assert inner.asked == []


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "0x7f.1", "0x7f000001", "2130706433", "127.1", "0177.0.0.1", "localhost",
        "localhost.", "[::1]", "::1", "[::ffff:127.0.0.1]", "::ffff:7f00:1", "0", "0.0.0.0", "::",
    ],
)  # fmt: skip
async def test_loopback_is_refused_however_it_is_written(host: str) -> None:
    inner = RecordingBackend()
    with pytest.raises((UrlNotAllowed, httpcore.ConnectError)):
        await CheckedBackend(allow_private=False, backend=inner).connect_tcp(host, 80)
    assert inner.asked == []


async def test_private_addresses_pass_where_they_are_allowed() -> None:
    inner = RecordingBackend()
    with pytest.raises(httpcore.ConnectError):
        await CheckedBackend(allow_private=True, backend=inner).connect_tcp("127.0.0.1", 80)
    assert inner.asked == [("127.0.0.1", 80)]


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "fd00:ec2::254", "168.63.129.16",
     "100.100.100.200", "0.0.0.0", "224.0.0.1", "255.255.255.255", "64:ff9b::a9fe:a9fe"],
)  # fmt: skip
async def test_metadata_of_a_cloud_is_refused_even_where_private_addresses_pass(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    resolve_to(monkeypatch, [address])
    inner = RecordingBackend()
    with pytest.raises(UrlNotAllowed, match="neither public nor private"):
        await CheckedBackend(allow_private=True, backend=inner).connect_tcp("listed.example", 443)
    assert inner.asked == []


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "::1", "fd12::1", "8.8.8.8"])
async def test_hosts_of_one_s_own_network_pass_where_they_are_allowed(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    resolve_to(monkeypatch, [address])
    inner = RecordingBackend()
    with pytest.raises(httpcore.ConnectError):
        await CheckedBackend(allow_private=True, backend=inner).connect_tcp("listed.example", 443)
    assert inner.asked == [(address, 443)]


async def test_name_without_addresses_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, [])
    inner = RecordingBackend()
    with pytest.raises(httpcore.ConnectError):
        await CheckedBackend(allow_private=False, backend=inner).connect_tcp("h", 443)
    assert inner.asked == []
