"""The API as the page uses it, over HTTP."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias

import httpx

from serve_app.core.stages import STAGES
from serve_app.packs.registry import is_demo_pack

_ASK_S = 10.0
_TRANSCRIPTIONS = "/v1/audio/transcriptions"
_DATA = "data: "
_TIMEOUT_SLACK_S = 30.0
UNREACHABLE = "unreachable"


class ApiRefusal(Exception):
    """The API did not do what it was asked for.

    Attributes:
        status: of HTTP; 0 if there was no answer.
        code: the API's own, or `unreachable`.
        message: of the API, in English.
        retry_after_s: when to try again, if it said so.
    """

    def __init__(
        self, status: int, code: str, message: str, retry_after_s: int | None = None
    ) -> None:
        super().__init__(status, code, message, retry_after_s)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class ApiOffer:
    """What the API serves.

    Attributes:
        models: names for the field `model`, the first one the default.
        stages: those that are deployed.
        hotword_models: those of the models that take hotwords.
    """

    models: tuple[str, ...]
    stages: tuple[str, ...]
    hotword_models: frozenset[str]

    @property
    def demo_models(self) -> tuple[str, ...]:
        """Those of the models that are built-in demo packs."""
        return tuple(name for name in self.models if is_demo_pack(name))


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of a recording; empty texts are left to the API."""

    model: str
    stages: tuple[str, ...] = ()
    hotwords: str = ""


@dataclass(frozen=True, slots=True)
class SentenceHeard:
    """A piece of the transcript, in order."""

    start_ms: int
    end_ms: int
    text: str


@dataclass(frozen=True, slots=True)
class TranscriptEnded:
    """The end of a transcript.

    Attributes:
        duration_s: of the recording, rounded up.
        failed_ranges_ms: spans without text because of an error.
    """

    duration_s: int
    failed_ranges_ms: tuple[tuple[int, int], ...] = ()


StreamedEvent: TypeAlias = SentenceHeard | TranscriptEnded


class ApiClient:
    """Asks the API.

    Args:
        base_url: of the service.
        timeout_s: longest time without a sign of life; the API has deadlines of its own.
        transport: instead of the network.
    """

    def __init__(
        self,
        base_url: str,
        timeout_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._base_url = base_url
        self._timeout = httpx.Timeout(_ASK_S, read=timeout_s + _TIMEOUT_SLACK_S)
        self._transport = transport

    async def offer(self, key: str) -> ApiOffer:
        """Returns what is served, to whoever has this key.

        Raises:
            ApiRefusal: the key is not accepted, or there is no answer.
        """
        async with self._open(key) as client:
            try:
                models = _checked(await client.get("/v1/models", timeout=_ASK_S)).json()["data"]
                ready = await client.get("/readyz", timeout=_ASK_S)
            except httpx.HTTPError as error:
                raise _unreachable(error) from None
            except (KeyError, TypeError, ValueError):
                raise ApiRefusal(0, UNREACHABLE, "this is not the API") from None
        return ApiOffer(_names(models), _deployed(ready), _with_hotwords(models))

    async def transcribe(
        self, recording: BinaryIO, order: Order, key: str
    ) -> AsyncGenerator[StreamedEvent]:
        """Yields the transcript as it comes; closing it closes the request.

        Raises:
            ApiRefusal: before the first event or after any of them.
        """
        fields = {"model": order.model, "stream": "true"}
        if order.stages:
            fields["stages"] = ",".join(order.stages)
        if order.hotwords:
            fields["hotwords"] = order.hotwords
        async with self._open(key) as client:
            try:
                async with client.stream(
                    "POST", _TRANSCRIPTIONS, data=fields, files={"file": ("recording", recording)}
                ) as response:
                    if response.status_code != httpx.codes.OK:
                        await response.aread()
                        _checked(response)
                    async for line in response.aiter_lines():
                        if line.startswith(_DATA):
                            yield _event(json.loads(line.removeprefix(_DATA)))
            except httpx.HTTPError as error:
                raise _unreachable(error) from None

    def _open(self, key: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self._base_url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=self._timeout,
            transport=self._transport,
            trust_env=False,
        )


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    try:
        error = response.json()["error"]
        code, message = str(error["code"]), str(error["message"])
    except (KeyError, TypeError, ValueError):
        code, message = f"http_{response.status_code}", response.reason_phrase
    after = response.headers.get("Retry-After", "")
    retry_after_s = int(after) if after.isdecimal() else None
    raise ApiRefusal(response.status_code, code, message, retry_after_s)


def _unreachable(error: httpx.HTTPError) -> ApiRefusal:
    return ApiRefusal(0, UNREACHABLE, type(error).__name__)


def _event(body: dict[str, Any]) -> StreamedEvent:
    kind = body["type"]
    if kind == "transcript.text.delta":
        return SentenceHeard(_ms(body["start"]), _ms(body["end"]), str(body["delta"]).strip())
    if kind == "transcript.text.done":
        failed = tuple(
            (_ms(span["start"]), _ms(span["end"])) for span in body.get("failed_ranges", ())
        )
        return TranscriptEnded(math.ceil(body["duration"]), failed)
    error = body.get("error", {})
    raise ApiRefusal(500, str(error.get("code", kind)), str(error.get("message", kind)))


def _names(models: list[dict[str, Any]]) -> tuple[str, ...]:
    """Returns the names that are packs' own: others mean one of these."""
    return tuple(
        str(model["id"]) for model in models if model.get("root", model["id"]) == model["id"]
    )


def _with_hotwords(models: list[dict[str, Any]]) -> frozenset[str]:
    return frozenset(str(model["id"]) for model in models if model.get("hotwords"))


def _deployed(ready: httpx.Response) -> tuple[str, ...]:
    """Returns the deployed stages; all of them of a service that is still starting."""
    try:
        named = ready.json()["stages"]
    except (KeyError, TypeError, ValueError):
        return STAGES
    return tuple(stage for stage in STAGES if stage in named)


def _ms(seconds: float) -> int:
    return round(float(seconds) * 1000)
