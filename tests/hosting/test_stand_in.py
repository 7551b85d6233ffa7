from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import openai
import pytest

from serve_app.hosting.stand_in import (
    PreparedStandIn,
    StandInTask,
    listeners,
    refusal,
    retry_after_s,
    stand_in,
)
from serve_app.launch import free_port

HOST = "127.0.0.1"


def listener(port: int, shares: bool = True) -> socket.socket:
    """A socket as HAProxy opens it."""
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shares)
    server.bind((HOST, port))
    server.listen()
    return server


def marked_environment() -> dict[str, str]:
    return {**os.environ, "STAND_IN_OF": str(os.getpid())}


def marked_processes() -> list[int]:
    """Returns the processes with `marked_environment`."""
    mark = f"STAND_IN_OF={os.getpid()}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("the condition did not come true within a minute")


async def until_listening(port: int) -> None:
    await until(lambda: bool(listeners(port)))


async def test_every_request_is_refused_with_the_rest_of_the_start() -> None:
    port = free_port(HOST)
    standing = asyncio.create_task(stand_in(HOST, port, start_s=20.0, limit_s=120.0))
    await until_listening(port)
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"http://{HOST}:{port}/v1/x", content=bytes(20_000_000))
    assert answer.status_code == 503
    assert 10 <= int(answer.headers["Retry-After"]) <= 30
    assert answer.json()["error"]["code"] == "not_ready"
    standing.cancel()


async def test_wait_is_never_longer_than_clients_accept() -> None:
    port = free_port(HOST)
    standing = asyncio.create_task(stand_in(HOST, port, start_s=100.0, limit_s=120.0))
    await until_listening(port)
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://{HOST}:{port}/v1/models")
    assert 45 <= int(answer.headers["Retry-After"]) <= 60
    standing.cancel()


@pytest.mark.parametrize(
    ("start_s", "left_s", "first_s", "last_s"),
    [(20, 20, 20, 30), (20, 5, 5, 15), (20, -3, 2, 12), (50, 40, 40, 60), (100, 90, 45, 60)],
)
def test_clients_are_spread_whatever_is_left_of_the_start(
    start_s: float, left_s: float, first_s: float, last_s: float
) -> None:
    assert retry_after_s(start_s, left_s, 0.0) == first_s
    assert retry_after_s(start_s, left_s, 1.0) == last_s


async def test_openai_client_waits_as_long_as_it_is_told() -> None:
    port = free_port(HOST)
    standing = asyncio.create_task(stand_in(HOST, port, start_s=20.0, limit_s=120.0))
    await until_listening(port)
    client = openai.AsyncOpenAI(base_url=f"http://{HOST}:{port}/v1", api_key="k", max_retries=0)
    with pytest.raises(openai.InternalServerError, match="restarting"):
        await client.models.list()
    standing.cancel()


async def test_stand_in_leaves_when_the_service_listens_again() -> None:
    port = free_port(HOST)
    standing = asyncio.create_task(stand_in(HOST, port, start_s=20.0, limit_s=120.0))
    await until_listening(port)
    # It has to see itself alone first.
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(standing), 0.5)
    with listener(port):
        await asyncio.wait_for(standing, 60)


async def test_stand_in_waits_for_the_end_of_the_dead_service() -> None:
    port = free_port(HOST)
    dead = listener(port)
    standing = asyncio.create_task(stand_in(HOST, port, start_s=20.0, limit_s=120.0))
    await until(lambda: len(listeners(port)) == 2)
    dead.close()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(standing), 0.5)
    standing.cancel()


async def test_stand_in_ends_at_its_limit() -> None:
    await asyncio.wait_for(stand_in(HOST, free_port(HOST), start_s=1.0, limit_s=0.2), 60)


async def test_process_outlives_its_parent_and_takes_no_variable_of_the_run() -> None:
    port = free_port(HOST)
    prepared = PreparedStandIn(os.environ)
    with listener(port, shares=False) as dead:
        prepared.begin(StandInTask(HOST, port, 5.0, 120.0))
        # It waits for the port of a service that does not share it.
        dead.close()
    await until_listening(port)
    with listener(port):
        await until(lambda: len(listeners(port)) == 1)


async def test_process_ends_with_the_service_that_was_to_restart() -> None:
    """Killed while it restarts, say; whoever starts it again finds the port free."""
    port = free_port(HOST)
    script = (
        "import os, sys; from serve_app.hosting.stand_in import PreparedStandIn, StandInTask\n"
        f"PreparedStandIn(os.environ).begin(StandInTask({HOST!r}, {port}, 5.0, 120.0))\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as owner:  # noqa: ASYNC220, at once
        await until_listening(port)
        owner.kill()
    await until(lambda: not listeners(port))


async def test_one_that_has_ended_is_replaced() -> None:
    port = free_port(HOST)
    prepared = PreparedStandIn(marked_environment())
    await until(lambda: bool(marked_processes()))
    for process in marked_processes():
        os.kill(process, signal.SIGKILL)
    await until(lambda: not marked_processes())
    prepared.begin(StandInTask(HOST, port, 5.0, 120.0))
    await until_listening(port)
    with listener(port):
        await until(lambda: not marked_processes())


async def test_process_without_a_task_ends_with_its_parent() -> None:
    prepared = PreparedStandIn(marked_environment())
    await until(lambda: bool(marked_processes()))
    prepared.close()
    await until(lambda: not marked_processes())


def test_refusal_is_in_the_shape_of_the_api() -> None:
    head, _, body = refusal(7).partition(b"\r\n\r\n")
    assert b"Retry-After: 7" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body)["error"]["type"] == "server_error"
