"""The way in, on the wire: what callers invent leaves nothing behind."""

from __future__ import annotations

import re
import socket
import time

import httpx
import pytest

from serve_app.settings import Settings
from tests.service.watching import scrape
from tests.waiting import wait_until

pytestmark = pytest.mark.ray


def status_of(port: int, request: bytes) -> int:
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(request)
        return int(connection.makefile("rb").readline().split()[1])


def test_invented_methods_make_no_series_of_metrics(
    client: httpx.Client, settings: Settings
) -> None:
    for number in range(40):
        line = b"INVENTED%d /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % number
        assert status_of(settings.http.port, line) in {400, 405, 501}
    for method in ("PROPFIND", "MKCOL", "SUBSCRIBE"):
        head = f"{method} /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert status_of(settings.http.port, head.encode()) == 405
    # Whatever is counted after them is seen after them.
    assert client.patch("/v1/models").status_code == 405
    pattern = re.compile(r'ray_serve_num_http_requests_total\{[^}]*method="PATCH"')
    wait_until(lambda: pattern.search(scrape()) is not None)
    time.sleep(1)
    methods = set(re.findall(r'method="([^"]*)"', scrape()))
    assert not {method for method in methods if re.match("INVENTED|PROPFIND|MKCOL|SUBS", method)}


def test_answers_carry_one_well_formed_request_id(client: httpx.Client) -> None:
    for given in (b"mine-1", b"\xff", b"a b"):
        answer = client.get("/v1/models", headers=[(b"X-Request-ID", given)])
        assert answer.status_code == 200
        (shown,) = answer.headers.get_list("x-request-id")
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", shown)
        assert (shown == given.decode("latin-1")) == (given == b"mine-1")


def test_head_and_trailing_slash_pass_the_proxy(client: httpx.Client) -> None:
    assert client.head("/health").status_code == 200
    assert client.get("/v1/models/").json()["data"][0]["demo"] is True
