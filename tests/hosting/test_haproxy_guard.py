"""The guard of HAProxy, with the real program."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import httpx
import pytest

from loadtests.ports import free_port
from serve_app.core.in_flight import RUN_DIRECTORY_VARIABLE, begin_draining
from serve_app.hosting.haproxy_guard import (
    LEAST_UPTIME_S,
    haproxy_processes,
    stand_in_path,
    without_admin_socket,
)
from tests.hosting.haproxy_process import (
    Proxy,
    configuration,
    get,
    guards,
    launch,
    wait_until_served,
)
from tests.waiting import wait_until


def kill(proxy: Proxy) -> None:
    """Kills a proxy that has run for long enough to be worth a stand-in."""
    wait_until_served(proxy.url)
    time.sleep(LEAST_UPTIME_S)
    proxy.process.kill()
    proxy.process.wait()


def is_served(url: str) -> bool:
    try:
        return get(url).status_code == 200
    except httpx.TransportError:
        return False


def test_killed_proxy_is_stood_in_for(proxy: Proxy) -> None:
    kill(proxy)
    wait_until(lambda: is_served(proxy.url), "nobody stands in")
    (stand_in,) = haproxy_processes(str(proxy.folder / "haproxy.cfg"))
    assert stand_in.pid != proxy.process.pid


def test_stand_in_that_is_killed_is_stood_in_for(proxy: Proxy) -> None:
    kill(proxy)
    wait_until(lambda: is_served(proxy.url), "nobody stands in")
    (stand_in,) = haproxy_processes(str(proxy.folder / "haproxy.cfg"))
    stand_in.send(signal.SIGKILL)
    wait_until(lambda: not stand_in.is_alive, "the stand-in lives")
    wait_until(lambda: is_served(proxy.url), "nobody stands in for the stand-in")


def test_admin_socket_stays_dead_so_that_ray_replaces_the_proxy(proxy: Proxy) -> None:
    kill(proxy)
    wait_until(lambda: is_served(proxy.url), "nobody stands in")
    text = Path(stand_in_path(str(proxy.folder / "haproxy.cfg"))).read_text()
    assert "stats socket" not in text
    original = (proxy.folder / "haproxy.cfg").read_text()
    assert text == re.sub(r"    stats socket .*\n", "", original) == without_admin_socket(original)


def test_successor_takes_over_from_the_stand_in(proxy: Proxy, backend: int) -> None:
    kill(proxy)
    wait_until(lambda: is_served(proxy.url), "nobody stands in")
    (stand_in,) = haproxy_processes(str(proxy.folder / "haproxy.cfg"))
    configuration(proxy.folder, proxy.port, backend)
    successor = launch(proxy.folder, proxy.port)
    try:
        wait_until(lambda: not stand_in.is_alive, "the stand-in was not told to stop")
        assert wait_until_served(successor.url).text == "served"
        wait_until(lambda: len(guards(proxy.folder)) == 1, "the first guard stays")
    finally:
        successor.stop()


def test_nothing_stands_in_for_a_proxy_that_a_newer_one_has_replaced(
    proxy: Proxy, backend: int
) -> None:
    wait_until_served(proxy.url)
    time.sleep(LEAST_UPTIME_S)
    configuration(proxy.folder, proxy.port, backend)
    successor = launch(proxy.folder, proxy.port)
    try:
        assert proxy.process.wait(100) == 0
        wait_until(lambda: len(guards(proxy.folder)) == 1, "the first guard stays")
        running = haproxy_processes(str(proxy.folder / "haproxy.cfg"))
        assert [one.pid for one in running] == [successor.process.pid]
    finally:
        successor.stop()


def test_nothing_stands_in_while_the_run_drains(
    folder: Path, backend: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_DIRECTORY_VARIABLE, str(tmp_path))
    port = free_port()
    configuration(folder, port, backend)
    proxy = launch(folder, port)
    begin_draining(tmp_path)
    kill(proxy)
    wait_until(lambda: not guards(folder), "the guard stays")
    assert not haproxy_processes(str(folder / "haproxy.cfg"))


def test_proxy_that_serve_drains_has_no_guard(folder: Path, backend: int) -> None:
    port = free_port()
    configuration(folder, port, backend, passes_checks=False)
    proxy = launch(folder, port)
    try:
        assert not guards(folder)
    finally:
        proxy.stop()
