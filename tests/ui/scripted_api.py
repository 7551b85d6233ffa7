"""An API that answers as the test tells it to: the page's other side, without models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import HTTPConnection

from serve_app.core.words import split_words
from tests.client.job_service import job_json
from tests.fakes.live_service import ScriptedLiveService, ScriptedTalk

Said = tuple[float, float, str]

SAID: tuple[Said, ...] = (
    (0.5, 1.6, "各位同事下午好。"),
    (1.9, 3.1, "今天杭州的天气怎么样？"),
    (3.4, 4.8, "散会以后请把记录发给我。"),
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a request is refused."""

    status: int
    code: str
    message: str = "because the test wants it"
    retry_after_s: int | None = None

    def response(self) -> JSONResponse:
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        error = {"message": self.message, "type": "x", "param": None, "code": self.code}
        return JSONResponse({"error": error}, self.status, headers)


@dataclass(slots=True)
class ScriptedApi:
    """What the API does next, and what it was asked.

    Attributes:
        said: what is heard.
        key: that is demanded, if any.
        models: that are served.
        hotwords: whether the second model takes them.
        languages: that may be asked for.
        stages: that are deployed.
        speakers: labels, one for each sentence, where they are asked for.
        channels: one for each sentence, where separate ones are asked for.
        refusal: of transcriptions, if any.
        error_after: a stream breaks off with an error after this many sentences.
        jobs: by id, as they are answered; None for a service without jobs.
        hold_after: a stream waits after this many sentences for `release`.
        live: what live sessions are told; None for a service without them.
    """

    said: tuple[Said, ...] = SAID
    key: str | None = None
    models: tuple[str, str] = ("paraformer-demo", "seaco-demo")
    hotwords: bool = False
    languages: tuple[str, ...] = ("zh",)
    stages: tuple[str, ...] = ("vad", "asr", "punctuation")
    speakers: tuple[str, ...] = ()
    channels: tuple[int, ...] = ()
    refusal: Refusal | None = None
    error_after: int | None = None
    hold_after: int | None = None
    live: ScriptedLiveService | None = None
    jobs: dict[str, dict[str, Any]] | None = None
    orders: list[dict[str, str]] = field(default_factory=list)
    uploads: list[bytes] = field(default_factory=list)
    num_left: int = 0
    released: bool = False

    def app(self) -> FastAPI:
        app = FastAPI()
        app.get("/v1/models")(self._models)
        app.get("/readyz")(self._ready)
        app.post("/v1/audio/transcriptions")(self._transcribe)
        app.websocket("/v1/realtime")(self._live)
        app.add_api_route("/v1/jobs", self._job_list, methods=["GET", "POST"])
        app.add_api_route("/v1/jobs/{job_id}", self._job, methods=["GET", "DELETE"])
        app.add_api_route("/v1/jobs/{job_id}/cancel", self._job, methods=["POST"])
        app.add_api_route("/v1/jobs/{job_id}/result", self._job_result, methods=["GET"])
        return app

    def end_job(self, job_id: str, status: str = "completed", **others: object) -> None:
        """Brings a job into a state."""
        assert self.jobs is not None
        self.jobs[job_id] = job_json(job_id, status, **others)

    def release(self) -> None:
        self.released = True

    async def _models(self, request: Request) -> Response:
        if (refusal := self._stranger(request)) is not None:
            return refusal
        first, second = self.models
        models: list[dict[str, Any]] = [{"id": first}, {"id": second, "hotwords": self.hotwords}]
        offered = {"languages": list(self.languages), "speaker_labels": "speakers" in self.stages}
        models = [{**model, **offered} for model in models]
        models.append({"id": "whisper-1", "root": first})
        return JSONResponse({"object": "list", "data": models})

    async def _ready(self) -> Response:
        return JSONResponse({"status": "ready", "stages": {stage: {} for stage in self.stages}})

    async def _job_list(self, request: Request) -> Response:
        if (refusal := self._stranger(request)) is not None:
            return refusal
        if self.jobs is None:
            return Refusal(404, "not_found", "Not Found").response()
        if request.method == "GET":
            return JSONResponse({"object": "list", "data": [], "has_more": False})
        async with request.form() as form:
            self.uploads.append(await form["file"].read())  # type: ignore[union-attr]  # a file
            self.orders.append({name: str(form[name]) for name in form if name != "file"})
        if self.refusal is not None:
            return self.refusal.response()
        job_id = f"job_{len(self.jobs):024}"
        self.jobs[job_id] = job_json(job_id)
        return JSONResponse(self.jobs[job_id], 202)

    async def _job(self, request: Request, job_id: str) -> Response:
        if (refusal := self._stranger(request)) is not None:
            return refusal
        if self.jobs is None or job_id not in self.jobs:
            return Refusal(404, "job_not_found").response()
        if request.method == "DELETE":
            del self.jobs[job_id]
            return Response(status_code=204)
        if request.method == "POST":
            self.end_job(job_id, "cancelled")
        return JSONResponse(self.jobs[job_id])

    async def _job_result(self, request: Request, job_id: str) -> Response:
        if (refusal := self._stranger(request)) is not None:
            return refusal
        if self.jobs is None or self.jobs[job_id]["status"] != "completed":
            return Refusal(409, "job_not_finished").response()
        body = {
            "text": "".join(text for _, _, text in self.said),
            "language": "zh",
            "duration": 6.0,
            "segments": [
                {"id": number, "start": start, "end": end, "text": text}
                for number, (start, end, text) in enumerate(self.said)
            ],
            "words": [word for said in self.said for word in _words(*said)],
        }
        return JSONResponse(body)

    async def _transcribe(self, request: Request) -> Response:
        if (refusal := self._stranger(request)) is not None:
            return refusal
        async with request.form() as form:
            self.uploads.append(await form["file"].read())  # type: ignore[union-attr]  # a file
            self.orders.append({name: str(form[name]) for name in form if name != "file"})
        if self.refusal is not None:
            return self.refusal.response()
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _live(self, websocket: WebSocket) -> None:
        if self.live is None:
            await websocket.send_denial_response(JSONResponse({"detail": "Not Found"}, 404))
            return
        if (refusal := self._stranger(websocket)) is not None:
            await websocket.send_denial_response(refusal)
            return
        await websocket.accept()
        talk = ScriptedTalk(self.live, _StarletteWire(websocket))
        with suppress(WebSocketDisconnect, RuntimeError):
            await talk.begin()
            while True:
                await talk.take(await websocket.receive_text())

    def _stranger(self, request: HTTPConnection) -> Response | None:
        if self.key is None or request.headers.get("authorization") == f"Bearer {self.key}":
            return None
        return Refusal(401, "invalid_api_key", "no or unknown key").response()

    async def _events(self) -> AsyncIterator[str]:
        finished = False
        try:
            for number, (start, end, text) in enumerate(self.said):
                if number == self.error_after:
                    error = {"message": "a replica died", "code": "recognition_failed"}
                    yield _sse({"type": "error", "error": error})
                    return
                while number == self.hold_after and not self.released:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)  # told from another thread
                delta = {"type": "transcript.text.delta", "delta": text, "start": start, "end": end}
                channel: dict[str, int] = {}
                if self.orders[-1].get("channels") == "separate":
                    channel = {"channel": self.channels[number]}
                words = [{**word, **channel} for word in _words(*self.said[number])]
                yield _sse({**delta, **channel, "words": words})
            if self.orders[-1]["response_format"] == "diarized_json":
                for (start, end, text), speaker in zip(self.said, self.speakers, strict=True):
                    segment = {"type": "transcript.text.segment", "id": "seg", "text": text}
                    yield _sse({**segment, "start": start, "end": end, "speaker": speaker})
            text = "".join(text for _, _, text in self.said)
            yield _sse({"type": "transcript.text.done", "text": text, "duration": 6.0})
            finished = True
        finally:
            self.num_left += not finished


class _StarletteWire:
    """A WebSocket of FastAPI as the script of a session uses it."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def send(self, message: str, /) -> None:
        await self._websocket.send_text(message)

    async def close(self, code: int = 1000, reason: str = "", /) -> None:
        await self._websocket.close(code, reason)


def _words(start: float, end: float, text: str) -> list[dict[str, Any]]:
    """Returns a sentence's words, evenly spread; every fifth is uncertain."""
    words = [word for word, _ in split_words(text)]
    length = (end - start) / len(words)
    return [
        {
            "word": word,
            "start": round(start + number * length, 3),
            "end": round(start + (number + 1) * length, 3),
            "confidence": 0.31 if number % 5 == 4 else 0.98,
        }
        for number, word in enumerate(words)
    ]


def _sse(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
