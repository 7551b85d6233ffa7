"""Checks on the head of a request, before any other processing."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from ipaddress import ip_address

from starlette.types import Scope

from serve_app.core.errors import (
    HeadersTooLarge,
    HostNotAllowed,
    MethodNotAllowed,
    RequestNotAcceptable,
    UriTooLong,
)

METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
)
"""The methods that HTTP defines; any other would stay in Ray's metrics as a label.

Source: RFC 9110, section 9, and RFC 5789.
"""

MAX_NUM_HEADERS = 100
MAX_HEADERS_BYTES = 16 * 1024
MAX_URI_BYTES = 8 * 1024

_REQUEST_ID_NAME = b"x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_CONTROL_BYTES = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# Source: RFC 9110, section 5.6.2 (tokens).
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_IN_QUERY = re.compile(rb"[^\x21-\x7e]")
# Duplicates of these are ambiguous.
_SINGLE = frozenset({b"host", b"authorization", b"content-length", b"content-type"})
# With these a caller could control how Ray handles the request (Ray 2.60, `constants.py`).
_RAYS_OWN = frozenset(
    {
        b"serve-multiplexed-model-id",
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"x-session-id",
    }
)


def screen(scope: Scope) -> None:
    """Checks the head of an HTTP request.

    Raises:
        RequestNotAcceptable: it exceeds a limit or breaks a rule.
    """
    if scope["method"] not in METHODS:
        raise MethodNotAllowed("the request method is not supported")
    _screen_uri(scope)
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if len(headers) > MAX_NUM_HEADERS:
        raise HeadersTooLarge(f"a request may have at most {MAX_NUM_HEADERS} headers")
    if sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEADERS_BYTES:
        raise HeadersTooLarge(
            f"the headers of a request may have at most {MAX_HEADERS_BYTES} bytes"
        )
    if not all(_TOKEN.fullmatch(name) for name, _ in headers):
        raise RequestNotAcceptable("a header name is not valid")
    if any(_CONTROL_BYTES.search(value) for _, value in headers):
        raise RequestNotAcceptable("a header contains control characters")
    for name, num in Counter(name.lower() for name, _ in headers).items():
        if num > 1 and name in _SINGLE:
            raise RequestNotAcceptable(f"the header {name.decode('ascii')} must be given once")


def check_host(scope: Scope, allowed_hosts: tuple[str, ...]) -> None:
    """Checks the Host header.

    Loopback addresses pass: only a caller on this machine reaches the service by one, and
    no name of a foreign web page can look like one.

    Args:
        scope: of an HTTP request.
        allowed_hosts: names, or `*.` and a domain; empty for any.

    Raises:
        HostNotAllowed: it is none of these.
    """
    if not allowed_hosts:
        return
    values = [value for name, value in scope["headers"] if name.lower() == b"host"]
    host = _without_port(values[0].decode("latin-1")) if values else ""
    if not _is_loopback(host) and not any(_matches(host, entry) for entry in allowed_hosts):
        raise HostNotAllowed("the Host header does not name one of this service's hosts")


def request_id_in(scope: Scope) -> str:
    """Returns the caller's request id if it is well-formed, else a new one."""
    values = [value for name, value in scope.get("headers", ()) if name.lower() == _REQUEST_ID_NAME]
    given = values[0].decode("latin-1") if len(values) == 1 else ""
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def with_plain_headers(scope: Scope, request_id: str) -> list[tuple[bytes, bytes]]:
    """Returns the request's headers with this id, and without those that are Ray's own."""
    dropped = _RAYS_OWN | {_REQUEST_ID_NAME}
    headers = [
        (name, value)
        for name, value in scope["headers"]
        if name.lower().replace(b"_", b"-") not in dropped
    ]
    return [*headers, (_REQUEST_ID_NAME, request_id.encode("ascii"))]


def _screen_uri(scope: Scope) -> None:
    query: bytes = scope.get("query_string", b"")
    path = str(scope["path"])
    if len(scope.get("raw_path") or path) + len(query) > MAX_URI_BYTES:
        raise UriTooLong(f"the path and query of a request may have at most {MAX_URI_BYTES} bytes")
    if _CONTROLS.search(path) or _NOT_IN_QUERY.search(query):
        raise RequestNotAcceptable(
            "the path or query contains characters that must be percent-encoded"
        )


def _without_port(host: str) -> str:
    name, separator, port = host.rpartition(":")
    if separator and port.isdecimal() and not name.endswith(":"):
        host = name
    return host.lower().rstrip(".")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _matches(host: str, entry: str) -> bool:
    entry = entry.lower()
    if entry.startswith("*."):
        return host.endswith(entry[1:]) and len(host) > len(entry) - 1
    return host.strip("[]") == entry.strip("[]")
