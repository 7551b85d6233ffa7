"""Requests to the real service, each at its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from loadtests.simulation.recordings import Clip
from serve_app.planning.trace import Trace

_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """How a request went; `sent_s` is on the monotonic clock."""

    audio_s: float
    sent_s: float
    latency_s: float
    status: int


async def send_trace(url: str, trace: Trace, clips: Mapping[float, Clip]) -> list[Answer]:
    """Sends an open-loop load: nobody waits for anybody's answer."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    async with (
        httpx.AsyncClient(
            base_url=url, timeout=_TIMEOUT_S, limits=limits, trust_env=False
        ) as client,
        asyncio.TaskGroup() as group,
    ):
        start_s = time.monotonic()
        tasks = []
        for arrival_s, audio_s in zip(
            trace.arrival_s.tolist(), trace.audio_s.tolist(), strict=True
        ):
            await asyncio.sleep(max(0.0, start_s + arrival_s - time.monotonic()))
            tasks.append(group.create_task(_send(client, clips[audio_s])))
        return [await task for task in tasks]


async def send_closed(
    url: str, lengths_s: list[float], clips: Mapping[float, Clip], num_clients: int
) -> list[Answer]:
    """Sends recordings one after another from a number of clients."""
    waiting = iter(lengths_s)
    answers: list[Answer] = []

    async def work(client: httpx.AsyncClient) -> None:
        for audio_s in waiting:
            answer = await _send(client, clips[audio_s])
            answers.append(answer)

    async with (
        httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, trust_env=False) as client,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(num_clients):
            group.create_task(work(client))
    return answers


async def _send(client: httpx.AsyncClient, clip: Clip) -> Answer:
    sent_s = time.monotonic()
    response = await client.post(
        "/v1/audio/transcriptions",
        data={"model": "whisper-1"},
        files={"file": ("clip.flac", clip.content)},
    )
    return Answer(clip.audio_s, sent_s, time.monotonic() - sent_s, response.status_code)
