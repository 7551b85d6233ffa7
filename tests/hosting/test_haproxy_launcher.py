"""HAProxy as Ray configures it and `haproxy_launcher` bounds it: the real program."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from loadtests.ports import free_port
from serve_app.api.screening import METHODS
from serve_app.hosting.haproxy_launcher import ProxyOptions, UnknownConfiguration, rewrite
from tests.hosting.haproxy_process import (
    HEADER_TIMEOUT_S,
    Backend,
    Proxy,
    configuration,
    get,
    launch,
    wait_until_served,
)
from tests.waiting import wait_until


def listeners(pid: int) -> set[str]:
    """Returns the addresses that a process listens on."""
    sockets = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        match = re.match(r"socket:\[(\d+)\]", os.readlink(link))
        if match:
            sockets.add(match[1])
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {line[1].partition(":")[0] for line in lines if line[9] in sockets and line[3] == "0A"}


def test_only_the_service_listens_and_only_where_it_should(proxy: Proxy) -> None:
    assert listeners(proxy.process.pid) == {"0100007F"}
    text = (proxy.folder / "haproxy.cfg").read_text()
    assert "stats enable" not in text
    assert "prometheus" not in text


def test_service_listens_on_its_own_address_while_replicas_stay_on_theirs(folder: Path) -> None:
    text = configuration(folder, 8000, None)
    assert "\n    bind 127.0.0.1:8000\n" in rewrite(text, ProxyOptions(), "/d")
    assert "\n    bind *:8000\n" in rewrite(text, ProxyOptions(listen_host="0.0.0.0"), "/d")
    assert "\n    bind [::1]:8000\n" in rewrite(text, ProxyOptions(listen_host="::1"), "/d")


def test_admin_socket_is_its_users_alone(proxy: Proxy) -> None:
    assert stat.S_IMODE((proxy.folder / "admin").stat().st_mode) & 0o077 == 0


def test_half_headers_are_answered_after_their_time_and_others_meanwhile(proxy: Proxy) -> None:
    wait_until_served(f"{proxy.url}/v1/models")
    stuck = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(200)]
    try:
        for connection in stuck:
            connection.sendall(b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\n")
        assert get(f"{proxy.url}/v1/models").text == "served"
        for connection in stuck:
            connection.settimeout(20 * HEADER_TIMEOUT_S)
            answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 408 ")
    finally:
        for connection in stuck:
            connection.close()


def test_full_proxy_serves_again_once_the_half_headers_have_timed_out(
    folder: Path, backend: int
) -> None:
    port = free_port()
    configuration(folder, port, backend)
    proxy = launch(folder, port, maxconn=50)
    stuck = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
    try:
        for connection in stuck:
            connection.sendall(b"GET / HTTP/1.1\r\n")
        assert wait_until_served(f"{proxy.url}/").text == "served"
    finally:
        for connection in stuck:
            connection.close()
        proxy.stop()


def test_missing_routes_are_503_and_never_404(folder: Path) -> None:
    port = free_port()
    configuration(folder, port, None)
    proxy = launch(folder, port)
    try:
        response = get(f"{proxy.url}/v1/models")
    finally:
        proxy.stop()
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert response.json()["error"]["code"] == "not_ready"


@pytest.mark.parametrize(("expects_root", "status"), [(True, 503), (False, 404)])
def test_path_without_route_is_503_where_a_root_is_still_to_come(
    folder: Path, backend: int, expects_root: bool, status: int
) -> None:
    port = free_port()
    configuration(folder, port, backend, prefix="/ui")
    proxy = launch(folder, port, ProxyOptions(expects_root=expects_root))
    try:
        response = get(f"{proxy.url}/v1/models")
    finally:
        proxy.stop()
    assert response.status_code == status
    assert response.json()["error"]["type"]


def test_service_without_replicas_is_503_with_a_time_to_try_again(folder: Path) -> None:
    port = free_port()
    configuration(folder, port, free_port())
    proxy = launch(folder, port)
    try:
        response = get(f"{proxy.url}/v1/models")
    finally:
        proxy.stop()
    assert response.status_code == 503
    assert "retry-after" in response.headers
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def upload_in_parts(port: int, num_parts: int, part: bytes) -> bytes:
    """Sends a request whose body arrives after its header; returns the answer's first bytes."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Length: "
        connection.sendall(f"{head}{num_parts * len(part)}\r\n\r\n".encode())
        for _ in range(num_parts):
            time.sleep(0.02)
            connection.sendall(part)
        return connection.recv(65536)


@pytest.mark.parametrize("has_routes", [False, True])
def test_upload_without_a_server_gets_its_answer_not_a_broken_connection(
    folder: Path, has_routes: bool
) -> None:
    port = free_port()
    configuration(folder, port, free_port() if has_routes else None)
    proxy = launch(folder, port, ProxyOptions(start_s=33))
    try:
        # Until its first check has failed the server counts as usable.
        if has_routes:
            wait_until(lambda: (b"retry-after", b"5") in get(f"{proxy.url}/").headers.raw)
        answers = [upload_in_parts(port, 8, bytes(10_000)) for _ in range(5)]
    finally:
        proxy.stop()
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert (b"retry-after: 5\r\n" if has_routes else b"retry-after: 33\r\n") in answer
        assert b'"code": "not_ready"' in answer


def test_successor_of_a_killed_manager_takes_over_from_the_orphan(
    folder: Path, backend: int
) -> None:
    port = free_port()
    configuration(folder, port, backend)
    orphan = launch(folder, port)
    configuration(folder, port, backend)
    successor = launch(folder, port)
    try:
        assert orphan.process.wait(30) == 0
        assert wait_until_served(f"{successor.url}/").text == "served"
    finally:
        orphan.stop()
        successor.stop()


def test_connections_are_bounded_for_each_address_but_the_loopback_ones(folder: Path) -> None:
    text = rewrite(configuration(folder, 8000, None), ProxyOptions(), "/d")
    assert "tcp-request connection reject if { sc0_conn_cur gt 1024 }" in text
    assert "track-sc0 src if !{ src 127.0.0.0/8 ::1/128 }" in text
    unbounded = ProxyOptions(max_connections_per_address=0)
    assert "sc0_conn_cur" not in rewrite(configuration(folder, 8000, None), unbounded, "/d")


def test_configuration_that_is_not_known_is_refused(folder: Path) -> None:
    text = configuration(folder, 8000, None)
    for part in ("mode 666", "errorfile", "listen stats", "status 404", "bind 127.0.0.1:8000"):
        with pytest.raises(UnknownConfiguration):
            rewrite(text.replace(part, "other"), ProxyOptions(), "/d")


def test_program_of_ray_is_found_though_ray_names_this_one(proxy: Proxy) -> None:
    assert Path(f"/proc/{proxy.process.pid}/comm").read_text().strip() == "haproxy"


@pytest.fixture
def caching_proxy(folder: Path, backend: int) -> Iterator[Proxy]:
    port = free_port()
    configuration(folder, port, backend)
    proxy = launch(folder, port, ProxyOptions(expects_root=True))
    wait_until_served(f"{proxy.url}/v1/models")
    Backend.documents.clear()
    yield proxy
    proxy.stop()


def test_invented_methods_are_refused_before_any_replica(proxy: Proxy) -> None:
    wait_until_served(f"{proxy.url}/v1/models")
    answer = httpx.request("M1", f"{proxy.url}/v1/models", trust_env=False)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH, POST"
    assert answer.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("method", sorted(METHODS - {"CONNECT"}))
def test_methods_of_http_reach_the_replicas(proxy: Proxy, method: str) -> None:
    wait_until_served(f"{proxy.url}/v1/models")
    answer = httpx.request(method, f"{proxy.url}/v1/models", trust_env=False)
    # The backend of this test knows GET alone.
    assert answer.status_code == (200 if method == "GET" else 501)


def test_documents_are_cached_regardless_of_other_headers(
    caching_proxy: Proxy,
) -> None:
    for number in range(5):
        answer = httpx.get(
            f"{caching_proxy.url}/openapi.json?x={number}",
            headers={
                "Authorization": f"Bearer {number}",
                "Cache-Control": "no-cache",
                "Pragma": "no-cache",
            },
            trust_env=False,
        )
        assert (answer.status_code, answer.text) == (200, "served")
    assert [path for path, _ in Backend.documents] == ["/openapi.json"]
    for name in ("/docs", "/docs/swagger-ui.css"):
        assert {get(caching_proxy.url + name).text for _ in range(3)} == {"served"}
    assert len(Backend.documents) == 3


def test_conditions_and_heads_are_answered_from_the_cache(caching_proxy: Proxy) -> None:
    address = f"{caching_proxy.url}/openapi.json"
    conditions = {"If-None-Match": '"1"', "Range": "bytes=0-1"}
    # On the way to an empty cache they would keep it empty.
    assert httpx.get(address, headers=conditions, trust_env=False).text == "served"
    assert httpx.get(address, headers=conditions, trust_env=False).status_code == 304
    head = httpx.head(address, trust_env=False)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "6")
    ((_, asked),) = Backend.documents
    assert "If-None-Match" not in asked
    assert "Range" not in asked


def test_cached_document_has_the_id_of_its_own_request(caching_proxy: Proxy) -> None:
    def id_of(*given: str) -> str:
        answer = httpx.get(
            f"{caching_proxy.url}/openapi.json",
            headers=[("X-Request-ID", value) for value in given],
            trust_env=False,
        )
        return str(answer.headers["x-request-id"])

    assert [id_of("first"), id_of("second")] == ["first", "second"]
    others = {id_of(), id_of("not plain"), id_of("a" * 200), id_of("one", "two")}
    assert len(others) == 4
    assert all(re.fullmatch(r"[0-9a-f-]{36}", made) for made in others)
    assert len(Backend.documents) == 1


def test_scripts_of_other_origins_get_an_answer_of_their_own(caching_proxy: Proxy) -> None:
    for origin in ("https://a.example", "https://b.example"):
        httpx.get(f"{caching_proxy.url}/openapi.json", headers={"Origin": origin}, trust_env=False)
    assert [headers["Origin"] for _, headers in Backend.documents] == [
        "https://a.example",
        "https://b.example",
    ]


def test_only_documents_are_cached_and_only_where_the_root_is_the_api(folder: Path) -> None:
    text = configuration(folder, 8000, 9000)
    assert "cache-use" not in rewrite(text, ProxyOptions(), "/d")
    cached = rewrite(text, ProxyOptions(expects_root=True), "/d")
    rules = [line for line in cached.splitlines() if "cache-use" in line or "cache-store" in line]
    assert rules
    assert all(line.endswith(" if cached") for line in rules)
    assert "if METH_GET is_document !has_origin" in cached


async def test_rewriting_is_quick_enough_for_every_reload(folder: Path) -> None:
    # Ray's own reload runs in an event loop; the launcher must not import the service.
    script = "import sys, serve_app.hosting.haproxy_launcher; print(*sys.modules)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert not {"ray", "pydantic", "torch", "asyncio"} & set(output.decode().split())
