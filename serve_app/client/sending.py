"""Calls of the HTTP API: sent, sent again where that helps, and checked."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, TypeVar

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
)

from serve_app.client.errors import ClientError, not_the_api, refusal_of, unreachable

_MAX_PAUSE_S = 60.0
_FIRST_PAUSE_S, _MAX_RANDOM_PAUSE_S = 0.5, 8.0

ResultT = TypeVar("ResultT")
QueryValue: TypeAlias = str | int | Sequence[str]


@dataclass(frozen=True, slots=True)
class Call:
    """A request to the service.

    Attributes:
        method, path: of HTTP; the path begins with a slash.
        query: parameters of the URL.
        headers: beyond the client's own.
        body: what httpx takes for it: `content`, `data`, `files` or `json`.
        repeated: whether it is sent again if it may succeed later.
        timeout_s: without a sign of life; None for the client's.
    """

    method: str
    path: str
    query: Mapping[str, QueryValue] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    repeated: bool = True
    timeout_s: float | None = None

    def options(self) -> dict[str, Any]:
        """Returns the arguments of httpx."""
        options: dict[str, Any] = {
            "method": self.method,
            "url": self.path,
            "params": {name: value for name, value in self.query.items() if value != ""},
            "headers": dict(self.headers),
            **self.body,
        }
        if self.timeout_s is not None:
            options["timeout"] = self.timeout_s
        return options


@dataclass(frozen=True, slots=True)
class Pause:
    """A wait in a flow."""

    seconds: float


Flow: TypeAlias = Generator[Call | Pause, httpx.Response | None, ResultT]
"""Several calls that depend on each other: gets the response of each call that it yields, and has
the `ClientError` of one that fails thrown into it. Both forms of the client run the same flow."""


_Advance: TypeAlias = Callable[[], Call | Pause]


class Sender:
    """Sends calls for the blocking client.

    Args:
        http: sends the requests; the owner closes it.
        url: of the service, for messages.
        max_retries: further attempts of a call.
    """

    def __init__(self, http: httpx.Client, url: str, max_retries: int) -> None:
        self._http = http
        self._retry = retry_options(max_retries)
        self.url = url

    def send(self, call: Call) -> httpx.Response:
        """Returns the response to a call that was accepted.

        Raises:
            ClientError: it is refused, or the service cannot be reached.
        """
        if not call.repeated:
            return self._once(call)
        return Retrying(**self._retry)(self._once, call)

    def run(self, flow: Flow[ResultT]) -> ResultT:
        """Runs a flow to its end.

        Raises:
            ClientError: one that the flow does not handle.
        """
        advance: _Advance = partial(flow.send, None)
        while True:
            try:
                step = advance()
            except StopIteration as end:
                result: ResultT = end.value
                return result
            advance = self._take(step, flow)

    @contextmanager
    def stream(self, call: Call) -> Iterator[httpx.Response]:
        """Opens a response that is read as it arrives; it is tried once.

        Raises:
            ClientError: as `send`, at any time until it is closed.
        """
        with connection_errors(self.url), self._http.stream(**call.options()) as response:
            if not response.is_success:
                response.read()
            yield checked(response)

    def _take(self, step: Call | Pause, flow: Flow[ResultT]) -> _Advance:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return partial(flow.send, None)
        try:
            response = self.send(step)
        except ClientError as error:
            return partial(flow.throw, error)
        return partial(flow.send, response)

    def _once(self, call: Call) -> httpx.Response:
        with connection_errors(self.url):
            return checked(self._http.request(**call.options()))


class AsyncSender:
    """As `Sender`, for asyncio."""

    def __init__(self, http: httpx.AsyncClient, url: str, max_retries: int) -> None:
        self._http = http
        self._retry = retry_options(max_retries)
        self.url = url

    async def send(self, call: Call) -> httpx.Response:
        """As `Sender.send`."""
        if not call.repeated:
            return await self._once(call)
        response: httpx.Response = await AsyncRetrying(**self._retry)(self._once, call)
        return response

    async def run(self, flow: Flow[ResultT]) -> ResultT:
        """As `Sender.run`."""
        advance: _Advance = partial(flow.send, None)
        while True:
            try:
                step = advance()
            except StopIteration as end:
                result: ResultT = end.value
                return result
            advance = await self._take(step, flow)

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[httpx.Response]:
        """As `Sender.stream`."""
        with connection_errors(self.url):
            async with self._http.stream(**call.options()) as response:
                if not response.is_success:
                    await response.aread()
                yield checked(response)

    async def _take(self, step: Call | Pause, flow: Flow[ResultT]) -> _Advance:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return partial(flow.send, None)
        try:
            response = await self.send(step)
        except ClientError as error:
            return partial(flow.throw, error)
        return partial(flow.send, response)

    async def _once(self, call: Call) -> httpx.Response:
        with connection_errors(self.url):
            return checked(await self._http.request(**call.options()))


def checked(response: httpx.Response) -> httpx.Response:
    """Returns a response that was accepted.

    Raises:
        ServiceRefusal: it is an error; its body has been read.
    """
    if response.is_success:
        return response
    raise refusal_of(response)


def json_of(response: httpx.Response, url: str, read: Callable[[Any], ResultT]) -> ResultT:
    """Returns what `read` makes of the body of a response.

    Raises:
        ServiceUnreachable: it is not what the service would send.
    """
    try:
        return read(response.json())
    except (AttributeError, KeyError, TypeError, ValueError):
        raise not_the_api(url) from None


@contextmanager
def connection_errors(url: str) -> Iterator[None]:
    """Turns connection errors into `ServiceUnreachable`."""
    try:
        yield
    except httpx.HTTPError as error:
        raise unreachable(error, url) from None


def retry_options(max_retries: int) -> dict[str, Any]:
    """Returns how tenacity shall repeat a call."""
    return {
        "stop": stop_after_attempt(max_retries + 1),
        "wait": _pause_s,
        "retry": retry_if_exception(_may_succeed_later),
        "reraise": True,
    }


def pause_after(error: BaseException | None, num_failures: int) -> float:
    """Returns how long to wait after a failure, in s.

    It is what the service asked for, at most a minute, else random and growing up to 8 s.
    """
    if isinstance(error, ClientError) and error.retry_after_s is not None:
        return min(_MAX_PAUSE_S, error.retry_after_s)
    longest_s = min(_MAX_RANDOM_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(num_failures - 1, 10))
    return random.uniform(0, longest_s)  # noqa: S311 (it only spreads the load)


def _may_succeed_later(error: BaseException) -> bool:
    return isinstance(error, ClientError) and error.may_succeed_later


def _pause_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    return pause_after(error, state.attempt_number)
