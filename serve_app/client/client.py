"""The blocking and the asyncio client."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, BinaryIO, Self

import httpx
from tenacity import AsyncRetrying, Retrying

from serve_app.client.answers import (
    Rendered,
    Served,
    StreamEvent,
    Transcription,
    event_of,
    rendered_of,
    served_of,
    transcription_of,
)
from serve_app.client.errors import not_the_api
from serve_app.client.jobs import AsyncJobs, Jobs
from serve_app.client.live import LiveRequest, LiveSession, open_session
from serve_app.client.requests import (
    Form,
    Recording,
    TranscriptionRequest,
    name_of,
    opened,
    service_url,
)
from serve_app.client.sending import (
    AsyncSender,
    Call,
    Sender,
    checked,
    connection_errors,
    json_of,
    retry_options,
)
from serve_app.client.usage import MonthUsage, usage_of

DEFAULT_URL = "http://localhost:8000"
_PATH = "/v1/audio/transcriptions"
_USAGE_PATH = "/v1/usage"
_CONNECT_S = 10.0
_ASK_S = 10.0
_DATA = "data:"
_ANY = TranscriptionRequest()
_ANY_LIVE = LiveRequest()


class _Caller:
    """What both forms of the client share.

    Args:
        base_url: of the service, with or without http:// and /v1; `PARASERVE_URL` or
            http://localhost:8000 unless given.
        api_key: `PARASERVE_API_KEY` or `OPENAI_API_KEY` unless given; "" for none.
        timeout_s: longest time without a sign of life; a transcription may take longer
            only if it is streamed. The service has deadlines of its own.
        max_retries: further attempts where the service is busy, restarting or cannot be
            reached. The pause is what the service asks for, at most a minute, else random
            and growing up to 8 s.

    Raises:
        ValueError: base_url is not a URL.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 3600.0,
        max_retries: int = 4,
    ) -> None:
        if api_key is None:
            api_key = os.environ.get("PARASERVE_API_KEY") or os.environ.get("OPENAI_API_KEY")
        self.url = service_url(base_url or os.environ.get("PARASERVE_URL") or DEFAULT_URL)
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._options: dict[str, Any] = {
            "base_url": self.url,
            "headers": self._headers,
            "timeout": httpx.Timeout(timeout_s, connect=_CONNECT_S),
            "trust_env": False,
        }
        self._retry = retry_options(max_retries)
        self._default_model: str | None = None

    def _parse(self, response: httpx.Response) -> Transcription:
        return json_of(response, self.url, transcription_of)

    def _first(self, models: httpx.Response) -> str:
        served = self._served(models).models
        if not served:
            raise not_the_api(self.url)
        return served[0]

    def _served(self, models: httpx.Response, readiness: httpx.Response | None = None) -> Served:
        try:
            ready = None if readiness is None else readiness.json()
        except ValueError:
            ready = None
        try:
            return served_of(checked(models).json()["data"], ready)
        except (KeyError, TypeError, ValueError):
            raise not_the_api(self.url) from None


class Paraserve(_Caller):
    """The blocking client. Used as a context manager, or closed by `close`.

    Attributes:
        jobs: asynchronous transcriptions.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 3600.0,
        max_retries: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(base_url, api_key, timeout_s=timeout_s, max_retries=max_retries)
        self._client = httpx.Client(**self._options, transport=transport)
        self._sender = Sender(self._client, self.url, max_retries)
        self.jobs = Jobs(self._sender, self._model, max_retries)

    __init__.__doc__ = _Caller.__doc__

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def served(self) -> Served:
        """Returns what the service offers.

        Raises:
            ClientError: it refuses, or cannot be reached.
        """
        with connection_errors(self.url):
            models = self._client.get("/v1/models", timeout=_ASK_S)
            return self._served(models, self._client.get("/readyz", timeout=_ASK_S))

    def usage(self, month: str = "") -> MonthUsage:
        """Returns what the key has used in a calendar month in UTC.

        Args:
            month: as 2026-11; the present one by default.

        Raises:
            ClientError: the service refuses it, counts nothing, or cannot be reached.
        """
        call = Call("GET", _USAGE_PATH, query={"month": month})
        return json_of(self._sender.send(call), self.url, usage_of)

    def transcribe(
        self, recording: Recording, request: TranscriptionRequest = _ANY
    ) -> Transcription:
        """Returns the transcript of a recording.

        Raises:
            ClientError: the service refuses it, fails, or cannot be reached.
            OSError: the recording cannot be read.
        """
        return self._parse(self._post(recording, request, "verbose_json"))

    def transcribe_as(
        self, recording: Recording, response_format: str, request: TranscriptionRequest = _ANY
    ) -> Rendered:
        """Returns the answer as it comes: text, json, verbose_json, srt or vtt.

        Raises:
            ClientError: as `transcribe`.
            OSError: the recording cannot be read.
        """
        response = self._post(recording, request, response_format)
        return rendered_of(response.text, response.headers)

    def stream(
        self, recording: Recording, request: TranscriptionRequest = _ANY
    ) -> Iterator[StreamEvent]:
        """Yields the transcript as it is made; it is tried once.

        Raises:
            ClientError: before the first event or after any of them.
            OSError: the recording cannot be read.
        """
        form = request.form(self._model(request), _streamed_format(request), stream=True)
        with (
            opened(recording) as content,
            connection_errors(self.url),
            self._client.stream(
                "POST", _PATH, data=form, files={"file": (name_of(recording), content)}
            ) as response,
        ):
            if not response.is_success:
                response.read()
            checked(response)
            for line in response.iter_lines():
                if (event := _event(line)) is not None:
                    yield event

    def _model(self, request: TranscriptionRequest) -> str:
        if request.model:
            return request.model
        if self._default_model is None:
            self._default_model = Retrying(**self._retry)(self._first_model)
        return self._default_model

    def _first_model(self) -> str:
        with connection_errors(self.url):
            return self._first(self._client.get("/v1/models", timeout=_ASK_S))

    def _post(
        self, recording: Recording, request: TranscriptionRequest, response_format: str
    ) -> httpx.Response:
        form = request.form(self._model(request), response_format)
        with opened(recording) as content:
            if not content.seekable():  # what has been sent cannot be sent again
                return self._send(content, name_of(recording), form)
            return Retrying(**self._retry)(self._send, content, name_of(recording), form)

    def _send(self, content: BinaryIO, name: str, form: Form) -> httpx.Response:
        with connection_errors(self.url):
            return checked(self._client.post(_PATH, data=form, files={"file": (name, content)}))


class AsyncParaserve(_Caller):
    """The asyncio client. Used as an async context manager, or closed by `aclose`.

    Attributes:
        jobs: asynchronous transcriptions.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 3600.0,
        max_retries: int = 4,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(base_url, api_key, timeout_s=timeout_s, max_retries=max_retries)
        self._client = httpx.AsyncClient(**self._options, transport=transport)
        self._sender = AsyncSender(self._client, self.url, max_retries)
        self.jobs = AsyncJobs(self._sender, self._model, max_retries)

    __init__.__doc__ = _Caller.__doc__

    async def aclose(self) -> None:
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def served(self) -> Served:
        """As `Paraserve.served`."""
        with connection_errors(self.url):
            models = await self._client.get("/v1/models", timeout=_ASK_S)
            return self._served(models, await self._client.get("/readyz", timeout=_ASK_S))

    async def usage(self, month: str = "") -> MonthUsage:
        """As `Paraserve.usage`."""
        call = Call("GET", _USAGE_PATH, query={"month": month})
        return json_of(await self._sender.send(call), self.url, usage_of)

    async def transcribe(
        self, recording: Recording, request: TranscriptionRequest = _ANY
    ) -> Transcription:
        """As `Paraserve.transcribe`."""
        return self._parse(await self._post(recording, request, "verbose_json"))

    async def transcribe_as(
        self, recording: Recording, response_format: str, request: TranscriptionRequest = _ANY
    ) -> Rendered:
        """As `Paraserve.transcribe_as`."""
        response = await self._post(recording, request, response_format)
        return rendered_of(response.text, response.headers)

    async def stream(
        self, recording: Recording, request: TranscriptionRequest = _ANY
    ) -> AsyncGenerator[StreamEvent]:
        """As `Paraserve.stream`; closing it closes the request."""
        form = request.form(await self._model(request), _streamed_format(request), stream=True)
        async with self._streamed(recording, form) as response:
            async for line in response.aiter_lines():
                if (event := _event(line)) is not None:
                    yield event

    @asynccontextmanager
    async def live(self, request: LiveRequest = _ANY_LIVE) -> AsyncIterator[LiveSession]:
        """Opens a live session, which ends with the block.

        Only the opening is tried again: a session that breaks off raises `LiveEnded`, which says
        from where another one should go on.

        Raises:
            ClientError: the service refuses it, cannot be reached, or serves no live
                transcription.
        """
        opened: LiveSession = await AsyncRetrying(**self._retry)(
            open_session, self.url, self._headers, request
        )
        async with opened as session:
            yield session

    @asynccontextmanager
    async def _streamed(self, recording: Recording, form: Form) -> AsyncIterator[httpx.Response]:
        with opened(recording) as content, connection_errors(self.url):
            files = {"file": (name_of(recording), content)}
            async with self._client.stream("POST", _PATH, data=form, files=files) as response:
                if not response.is_success:
                    await response.aread()
                yield checked(response)

    async def _model(self, request: TranscriptionRequest) -> str:
        if request.model:
            return request.model
        if self._default_model is None:
            first: str = await AsyncRetrying(**self._retry)(self._first_model)
            self._default_model = first
        return self._default_model

    async def _first_model(self) -> str:
        with connection_errors(self.url):
            return self._first(await self._client.get("/v1/models", timeout=_ASK_S))

    async def _post(
        self, recording: Recording, request: TranscriptionRequest, response_format: str
    ) -> httpx.Response:
        form = request.form(await self._model(request), response_format)
        with opened(recording) as content:
            if not content.seekable():
                return await self._send(content, name_of(recording), form)
            return await AsyncRetrying(**self._retry)(self._send, content, name_of(recording), form)

    async def _send(self, content: BinaryIO, name: str, form: Form) -> httpx.Response:
        with connection_errors(self.url):
            files = {"file": (name, content)}
            return checked(await self._client.post(_PATH, data=form, files=files))


def _streamed_format(request: TranscriptionRequest) -> str:
    return "diarized_json" if request.has_labels else "json"


def _event(line: str) -> StreamEvent | None:
    if not line.startswith(_DATA):
        return None
    text = line.removeprefix(_DATA).strip()
    return None if text == "[DONE]" else event_of(json.loads(text))
