"""Recordings sent with the public client, and how each answer is judged."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

import httpx
import numpy as np

from serve_app.client import (
    AsyncParaserve,
    ServiceRefusal,
    ServiceUnreachable,
    StreamEnd,
    TranscriptionRequest,
)
from serve_app.scheduling.backoff import Backoff

WHISPER = TranscriptionRequest(model="whisper-1")
_BACKOFF = Backoff(first_s=0.5, longest_s=8.0)
"""As OpenAI's clients pause between attempts."""
_LONGEST_TOLD_S = 60.0
"""The longest Retry-After that OpenAI's clients heed."""
# Shorter than the proxy keeps idle connections, so that no request meets one that
# the proxy is just closing.
_KEEPALIVE_S = 2.0


class Fate(StrEnum):
    """How a request, or one attempt at it, ended."""

    RIGHT = "right"  # the whole text, and the right one
    PARTIAL = "partial"  # says itself that a part is missing
    WRONG = "wrong"  # another text than the idle service gave
    REFUSED = "refused"  # 429
    REJECTED = "rejected"  # any other 4xx
    FAILED = "failed"  # 5xx by the service, or an error event in a stream
    UNAVAILABLE = "unavailable"  # nobody took it: 503, or no connection
    BROKEN = "broken"  # no answer of ours: the connection ended, or the proxy answered
    UNFINISHED = "unfinished"  # no answer by the end of the run


_NOT_ACCEPTED = frozenset({Fate.REFUSED, Fate.REJECTED, Fate.UNAVAILABLE})
_LOST = frozenset({Fate.WRONG, Fate.FAILED, Fate.BROKEN, Fate.UNFINISHED})


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent.

    Attributes:
        content: the recording.
        text: the answer that is right.
        stream: whether the answer is asked for as server-sent events.
        request_id: the same in every attempt, so that the service's logs, and anything
            in front of it, know a repetition by it.
    """

    content: bytes
    text: str
    stream: bool = False
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One HTTP request; times are on the monotonic clock.

    Attributes:
        first_at_s: when the answer, or the first event of a stream, came.
        status: None if no status line came.
        retry_after_s: of the answer, None without a usable one.
        detail: the error's code, or what the transport said.
    """

    fate: Fate
    began_s: float
    ended_s: float
    first_at_s: float | None = None
    status: int | None = None
    retry_after_s: float | None = None
    detail: str = ""

    @property
    def took_s(self) -> float:
        return self.ended_s - self.began_s


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request with all its attempts, at least one.

    Attributes:
        audio_s: length of what was sent.
        due_s: when it was due, on the monotonic clock.
        attempts: in their order.
        sent_late_s: how long after its time the generator came to send it.
    """

    audio_s: float
    due_s: float
    attempts: tuple[Attempt, ...]
    sent_late_s: float = 0.0

    @property
    def fate(self) -> Fate:
        return self.attempts[-1].fate

    @property
    def complete_s(self) -> float:
        """From its time to the end of its last attempt."""
        return self.attempts[-1].ended_s - self.due_s

    @property
    def first_byte_s(self) -> float | None:
        """From its time to the beginning of the last answer, None without one."""
        first_at_s = self.attempts[-1].first_at_s
        return None if first_at_s is None else first_at_s - self.due_s

    @property
    def accepted(self) -> bool:
        """Whether the service took it in some attempt."""
        return any(attempt.fate not in _NOT_ACCEPTED for attempt in self.attempts)

    @property
    def lost(self) -> bool:
        """Whether it was accepted and never answered with its text.

        A partial answer is not lost: it says what is missing, and is counted as such.
        """
        return self.fate in _LOST or (self.accepted and self.fate in _NOT_ACCEPTED)


@dataclass(frozen=True, slots=True)
class Retries:
    """Which attempts are followed by another one; none by default.

    Attributes:
        refusals: whether a 429 is, after its Retry-After.
        breaks: whether a broken connection or an absent service is, after a growing pause.
        failures: whether a 5xx is, likewise.
        max_attempts: in all.
    """

    refusals: bool = False
    breaks: bool = False
    failures: bool = False
    max_attempts: int = 10

    def pause_s(self, tried: Attempt, num_attempts: int) -> float | None:
        """Returns how long to wait before the next attempt, None for no further one."""
        repeated = {
            Fate.REFUSED: self.refusals,
            Fate.BROKEN: self.breaks,
            Fate.UNAVAILABLE: self.breaks,
            Fate.FAILED: self.failures,
        }
        if num_attempts >= self.max_attempts or not repeated.get(tried.fate, False):
            return None
        if tried.fate is Fate.REFUSED:
            return tried.retry_after_s or _BACKOFF.first_s
        told_s = tried.retry_after_s or 0.0
        return told_s if 0 < told_s <= _LONGEST_TOLD_S else _BACKOFF.pause_s(num_attempts)


@dataclass(slots=True)
class _Exchange:
    request_id: str
    status: int | None = None
    first_at_s: float | None = None


_EXCHANGE: ContextVar[_Exchange | None] = ContextVar("exchange", default=None)


class _Transport(httpx.AsyncBaseTransport):
    """Gives requests their ids, and notes when and with what status they are answered."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _EXCHANGE.get()
        if exchange is not None:
            request.headers["X-Request-ID"] = exchange.request_id
            request.headers["Idempotency-Key"] = exchange.request_id
        response = await self._inner.handle_async_request(request)
        if exchange is not None:
            exchange.status, exchange.first_at_s = response.status_code, time.monotonic()
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class Caller:
    """Sends recordings to a service, each attempt judged; use it in an `async with` block.

    Args:
        url: of the service.
        api_key: "" for none.
        max_connections: at once; requests beyond wait here, and that wait is part of their
            latency.
        timeout_s: without a byte in either direction.
        transport: in place of the network, for tests.
    """

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        max_connections: int = 256,
        timeout_s: float = 600.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        limits = httpx.Limits(
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=_KEEPALIVE_S,
        )
        inner = transport or httpx.AsyncHTTPTransport(limits=limits, trust_env=False)
        self.client = AsyncParaserve(
            url, api_key, timeout_s=timeout_s, max_retries=0, transport=_Transport(inner)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def text(self, content: bytes) -> str:
        """Returns what the service, idle, answers to a recording.

        Raises:
            ClientError: it did not.
        """
        rendered = await self.client.transcribe_as(content, "json", WHISPER)
        return str(json.loads(rendered.text)["text"])

    async def attempt(
        self, request: Request, on_first: Callable[[], None] = lambda: None
    ) -> Attempt:
        """Sends a request once.

        Args:
            request: what to send.
            on_first: called when the first event of a stream has come.
        """
        exchange = _Exchange(request.request_id)
        token = _EXCHANGE.set(exchange)
        began_s, retry_after_s = time.monotonic(), None
        try:
            if request.stream:
                fate, detail = await self._streamed(request, exchange, on_first)
            else:
                rendered = await self.client.transcribe_as(request.content, "json", WHISPER)
                body = json.loads(rendered.text)
                failed = json.dumps(body.get("failed_ranges")) if body.get("partial") else ""
                fate, detail = _judge(body["text"], failed, request.text)
        except ServiceRefusal as refusal:
            fate, detail = _judge_refusal(refusal)
            retry_after_s = refusal.retry_after_s
        except ServiceUnreachable as error:
            fate, detail = _judge_break(error)
        except (ValueError, KeyError, TypeError):
            fate, detail = Fate.BROKEN, "the answer ends in the middle"
        finally:
            _EXCHANGE.reset(token)
        first_at_s, ended_s = exchange.first_at_s, time.monotonic()
        return Attempt(fate, began_s, ended_s, first_at_s, exchange.status, retry_after_s, detail)

    async def send(
        self, request: Request, retries: Retries, attempts: list[Attempt] | None = None
    ) -> list[Attempt]:
        """Sends a request until it is answered for good.

        Args:
            request: what to send.
            retries: what is tried again.
            attempts: filled with the attempts as they end, for callers who may not wait.

        Returns:
            All attempts.
        """
        made = [] if attempts is None else attempts
        while True:
            made.append(await self.attempt(request))
            pause_s = retries.pause_s(made[-1], len(made))
            if pause_s is None:
                return made
            await asyncio.sleep(pause_s)

    async def _streamed(
        self, request: Request, exchange: _Exchange, on_first: Callable[[], None]
    ) -> tuple[Fate, str]:
        exchange_began = False
        async with aclosing(self.client.stream(request.content, WHISPER)) as events:
            async for event in events:
                if not exchange_began:
                    exchange_began, exchange.first_at_s = True, time.monotonic()
                    on_first()
                if isinstance(event, StreamEnd):
                    return _judge(event.text, str(event.failed or ""), request.text)
        return Fate.BROKEN, "the answer ends in the middle"


def _judge(text: str, failed: str, expected: str) -> tuple[Fate, str]:
    if failed:
        return Fate.PARTIAL, failed
    if text == expected:
        return Fate.RIGHT, ""
    return Fate.WRONG, f"{len(text)} characters instead of {len(expected)}"


def _judge_refusal(refusal: ServiceRefusal) -> tuple[Fate, str]:
    # Without our error body it is the proxy's own page. Whether it ever had an ingress
    # for the request cannot be told from outside, so it counts as accepted and broken.
    status, has_body = refusal.status, not refusal.code.startswith("http_")
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return Fate.REFUSED, refusal.code if has_body else "no OpenAI error body"
    if 400 <= status < 500:
        return Fate.REJECTED, refusal.code
    if not has_body:
        return Fate.BROKEN, f"{status} without our error body"
    if status == httpx.codes.SERVICE_UNAVAILABLE:
        return Fate.UNAVAILABLE, refusal.code
    return Fate.FAILED, refusal.code


def _judge_break(error: BaseException) -> tuple[Fate, str]:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, httpx.HTTPError):
        cause = cause.__context__
    if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout):
        return Fate.UNAVAILABLE, type(cause).__name__
    if isinstance(cause, httpx.TimeoutException):
        return Fate.UNFINISHED, type(cause).__name__
    return Fate.BROKEN, f"{type(cause or error).__name__}: {cause or error}"


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of latencies in s; None if there are none."""

    p50: float | None
    p95: float | None
    p99: float | None


def percentiles(latencies_s: Sequence[float]) -> Percentiles:
    if not latencies_s:
        return Percentiles(None, None, None)
    p50, p95, p99 = np.percentile(np.asarray(latencies_s), [50, 95, 99]).tolist()
    return Percentiles(p50, p95, p99)


def count(outcomes: Iterable[Outcome], fate: Fate) -> int:
    return sum(outcome.fate is fate for outcome in outcomes)


def attempts_of(outcomes: Iterable[Outcome], fate: Fate) -> list[Attempt]:
    """Returns every attempt that ended so, whatever became of its request."""
    return [attempt for outcome in outcomes for attempt in outcome.attempts if attempt.fate is fate]


def bad_refusals(refusals: Iterable[Attempt], max_retry_after_s: float) -> list[Attempt]:
    """Returns the refusals that do not tell a usable time to come back."""
    return [one for one in refusals if not 1 <= (one.retry_after_s or 0) <= max_retry_after_s]


def audio_s_per_s(outcomes: Iterable[Outcome]) -> float:
    """Audio that was answered right, per second from the first arrival to the last answer."""
    right = [outcome for outcome in outcomes if outcome.fate is Fate.RIGHT]
    if not right:
        return 0.0
    ended_s = max(outcome.due_s + outcome.complete_s for outcome in right)
    began_s = min(outcome.due_s for outcome in right)
    return sum(outcome.audio_s for outcome in right) / max(ended_s - began_s, 1e-9)
