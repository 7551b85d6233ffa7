"""One request: sent, answered, judged, and sent again where that is allowed."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from loadtests.load.outcomes import Attempt, Fate

_PATH = "/v1/audio/transcriptions"
_DATA = "data: "


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent.

    Attributes:
        content: the recording.
        text: the answer that is right.
        api_key: None to send none.
        stream: whether the answer is asked for as server-sent events.
        request_id: the same in every attempt, so that the service's logs, and anything
            in front of it, know a repetition by it.
    """

    content: bytes
    text: str
    api_key: str | None = None
    stream: bool = False
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(slots=True)
class Reply:
    """What has come back so far."""

    status: int | None = None
    retry_after_s: float | None = None
    first_byte_at_s: float | None = None
    body: bytearray = field(default_factory=bytearray)


async def attempt(
    client: httpx.AsyncClient,
    request: Request,
    now: Callable[[], float],
    reply: Reply | None = None,
) -> tuple[Attempt, float | None]:
    """Sends a request once.

    Args:
        client: with the base URL and time limits.
        request: what to send.
        now: the run's clock in s.
        reply: filled while the answer comes, for callers who want to watch it.

    Returns:
        How it ended, and when the first byte of the body came.
    """
    reply = Reply() if reply is None else reply
    try:
        await _exchange(client, request, reply, now)
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        return Attempt(Fate.UNAVAILABLE, now(), detail=type(error).__name__), None
    except httpx.TimeoutException as error:
        ended = Attempt(Fate.UNFINISHED, now(), reply.status, detail=type(error).__name__)
        return ended, reply.first_byte_at_s
    except httpx.TransportError as error:
        detail = f"{type(error).__name__}: {error}"
        return Attempt(Fate.BROKEN, now(), reply.status, detail=detail), reply.first_byte_at_s
    fate, detail = judge(reply, request)
    return Attempt(fate, now(), reply.status, reply.retry_after_s, detail), reply.first_byte_at_s


async def _exchange(
    client: httpx.AsyncClient, request: Request, reply: Reply, now: Callable[[], float]
) -> None:
    headers = {"X-Request-ID": request.request_id, "Idempotency-Key": request.request_id}
    if request.api_key is not None:
        headers["Authorization"] = f"Bearer {request.api_key}"
    data = {"model": "whisper-1"} | ({"stream": "true"} if request.stream else {})
    files = {"file": ("clip.flac", request.content, "audio/flac")}
    async with client.stream("POST", _PATH, headers=headers, data=data, files=files) as response:
        reply.status = response.status_code
        reply.retry_after_s = retry_after_s(response.headers.get("Retry-After"))
        async for part in response.aiter_bytes():
            if reply.first_byte_at_s is None:
                reply.first_byte_at_s = now()
            reply.body += part


def retry_after_s(header: str | None) -> float | None:
    """Returns the seconds of a Retry-After header, NaN if it is anything else."""
    if header is None:
        return None
    return float(header) if header.strip().isdecimal() else math.nan


def judge(reply: Reply, request: Request) -> tuple[Fate, str]:
    """Returns how an answer that came to its end is to be counted, and why."""
    if reply.status == httpx.codes.OK:
        body = _final_event(reply.body) if request.stream else _parsed(reply.body)
        return _judge_body(body, request.text)
    code = _error_code(_parsed(reply.body))
    status = reply.status or 0
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return Fate.REFUSED, code or "no OpenAI error body"
    if 400 <= status < 500:
        return Fate.REJECTED, code or str(status)
    if status == httpx.codes.SERVICE_UNAVAILABLE and code:
        return Fate.UNAVAILABLE, code
    if code:
        return Fate.FAILED, code
    # Without our error body it is the proxy's own page. Whether it ever had an ingress
    # for the request cannot be told from outside, so it counts as accepted and broken.
    return Fate.BROKEN, f"{status} without our error body"


def _judge_body(body: dict[str, Any] | None, text: str) -> tuple[Fate, str]:
    if body is None:
        return Fate.BROKEN, "the answer ends in the middle"
    if body.get("type") == "error":
        return Fate.FAILED, _error_code(body) or "error event"
    if body.get("partial"):
        return Fate.PARTIAL, json.dumps(body.get("failed_ranges"))
    if body.get("text") == text:
        return Fate.RIGHT, ""
    return Fate.WRONG, f"{len(str(body.get('text')))} characters instead of {len(text)}"


def _final_event(body: bytes | bytearray) -> dict[str, Any] | None:
    """Returns the event that ends a stream, None if the stream has no end."""
    events = [line for line in body.decode("utf-8", "replace").splitlines() if line.strip()]
    if not events or not events[-1].startswith(_DATA):
        return None
    event = _parsed(events[-1].removeprefix(_DATA).encode())
    if event is None or event.get("type") not in {"transcript.text.done", "error"}:
        return None
    return event


def _parsed(body: bytes | bytearray) -> dict[str, Any] | None:
    try:
        content = json.loads(body)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _error_code(body: dict[str, Any] | None) -> str:
    error = (body or {}).get("error")
    return str(error.get("code") or "") if isinstance(error, dict) else ""
