"""Many requests under way when the service is told to stop: `python -m loadtests drain`.

Starts `paraserve serve`, sends clips and long recordings all at once, sends SIGTERM when
all of them are under way, and compares each answer with what a quiet service gave.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from loadtests.load.clips import ClipLibrary
from loadtests.load.target import machine
from loadtests.serving import ServingProcess, start_serving
from serve_app.core.in_flight import num_in_flight
from serve_app.launch import wait_until_ready

_LENGTHS_S = (3.0, 15.0, 60.0, 600.0)
"""Of the recordings, in turn."""
_START_LIMIT_S = 600.0
_STOP_LIMIT_S = 60.0
_PATH = "/v1/audio/transcriptions"


@dataclass(frozen=True, slots=True)
class DrainRun:
    """What came of it.

    Attributes:
        num_sent: requests under way at the signal.
        num_right: of them, answered with the text of a quiet service.
        wrong: what became of the others.
        num_refused: requests sent after the signal that got a 503 with a Retry-After.
        num_later: requests sent after the signal.
        exit_code: of the service.
        took_s: from the signal to the end of the service.
    """

    num_sent: int
    num_right: int
    wrong: tuple[str, ...]
    num_refused: int
    num_later: int
    exit_code: int
    took_s: float

    @property
    def held(self) -> bool:
        return (
            self.num_right == self.num_sent
            and self.num_refused == self.num_later
            and self.exit_code == 0
        )


async def run(num_requests: int, limit_s: float) -> DrainRun:
    with tempfile.TemporaryDirectory() as folder:
        library = ClipLibrary(Path(folder))
        clips = [library.path(library.clip(length_s)) for length_s in _LENGTHS_S]
        async with _service(num_requests) as service:  # noqa: SIM117, the client needs the URL
            async with httpx.AsyncClient(
                base_url=service.url, timeout=limit_s, trust_env=False
            ) as client:
                texts = [await _text(client, clip) for clip in clips]
                chosen = [number % len(clips) for number in range(num_requests)]
                answers = [asyncio.create_task(_text(client, clips[kind])) for kind in chosen]
                await _until_all_under_way(num_requests, service.directory)
                service.process.send_signal(signal.SIGTERM)
                began_s = time.monotonic()
                later, refused = await _ask_meanwhile(client, answers)
                found = await asyncio.gather(*answers, return_exceptions=True)
                code = await asyncio.to_thread(service.process.wait)
                took_s = time.monotonic() - began_s
    right = [text == texts[kind] for text, kind in zip(found, chosen, strict=True)]
    wrong = tuple(
        f"{_LENGTHS_S[kind]:.0f} s: {text!r}"[:200]
        for text, kind, good in zip(found, chosen, right, strict=True)
        if not good
    )
    return DrainRun(num_requests, sum(right), wrong, refused, later, code, took_s)


@asynccontextmanager
async def _service(num_requests: int) -> AsyncIterator[ServingProcess]:
    service = start_serving(
        # All of them are queued, and some more can be refused.
        f"admission.max_waiting={num_requests}",
        f"ingress.deployment.max_ongoing_requests={2 * num_requests + 64}",
    )
    try:
        await asyncio.to_thread(wait_until_ready, service.url, _START_LIMIT_S)
        yield service
    finally:
        await asyncio.to_thread(service.stop, _STOP_LIMIT_S)


async def _text(client: httpx.AsyncClient, clip: Path) -> str:
    content = await asyncio.to_thread(clip.read_bytes)
    response = await client.post(
        _PATH, data={"model": "whisper-1"}, files={"file": (clip.name, content)}
    )
    response.raise_for_status()
    return str(response.json()["text"])


async def _until_all_under_way(number: int, directory: Path) -> None:
    async with asyncio.timeout(60):
        while num_in_flight(directory) < number:  # noqa: ASYNC110, it is another process's
            await asyncio.sleep(0.02)


async def _ask_meanwhile(
    client: httpx.AsyncClient, answers: list[asyncio.Task[str]]
) -> tuple[int, int]:
    """Returns how many requests were sent while the others ended, and how many were told so."""
    number = refused = 0
    await asyncio.sleep(1.0)
    while not all(answer.done() for answer in answers):
        response = await client.get("/v1/models")
        number += 1
        refused += response.status_code == 503 and "retry-after" in response.headers
        await asyncio.sleep(0.5)
    return number, refused


def main() -> int:
    """Returns the exit code: 0 if every request under way was answered right."""
    parser = argparse.ArgumentParser(prog="python -m loadtests drain", description=__doc__)
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--limit", type=float, default=600.0, help="s for the slowest answer")
    options = parser.parse_args()
    found = asyncio.run(run(options.requests, options.limit))
    print(f"{found.num_sent} requests under way at SIGTERM: {found.num_right} answered right")
    print(f"{found.num_later} sent afterwards: {found.num_refused} got a 503 with Retry-After")
    print(f"the service ended after {found.took_s:.1f} s with exit code {found.exit_code}")
    for line in found.wrong:
        print(f"  {line}")
    print(machine())
    return 0 if found.held else 1


if __name__ == "__main__":
    sys.exit(main())
