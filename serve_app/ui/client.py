"""The page's access to the API, and its names for the API's errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO, Literal, TypeAlias, get_args

import httpx
from fastapi.responses import JSONResponse

from serve_app.client import (
    AsyncParaserve,
    ClientError,
    Job,
    LiveRequest,
    LiveSession,
    StreamEvent,
    Transcription,
    TranscriptionRequest,
)
from serve_app.core.records import STAGES
from serve_app.packs.registry import is_demo_pack

_TIMEOUT_SLACK_S = 30.0
_MAX_RETRIES = 4
_NAME = "name"


@dataclass(frozen=True, slots=True)
class ApiOffer:
    """What the API serves.

    Attributes:
        models: names for the field `model`, the first one the default.
        stages: those that are deployed.
        hotword_models: those of the models that take hotwords.
        languages: values of the field `language`.
        jobs: whether recordings can become jobs.
    """

    models: tuple[str, ...]
    stages: tuple[str, ...]
    hotword_models: frozenset[str]
    languages: tuple[str, ...] = ()
    jobs: bool = False

    @property
    def demo_models(self) -> tuple[str, ...]:
        """Those of the models that are built-in demo packs."""
        return tuple(name for name in self.models if is_demo_pack(name))

    def shown(self) -> dict[str, object]:
        """Returns what the page's script reads."""
        return {
            "models": list(self.models),
            "demo_models": list(self.demo_models),
            "hotword_models": sorted(self.hotword_models),
            "stages": list(self.stages),
            "languages": list(self.languages),
            "jobs": self.jobs,
        }


@dataclass(frozen=True, slots=True)
class Order:
    """The options of a transcription; empty ones are left to the API.

    The stage `speakers` asks for speaker labels; `num_speakers` is 0 if it is not known.
    """

    model: str
    stages: tuple[str, ...] = ()
    hotwords: str = ""
    language: str = ""
    itn: bool = False
    num_speakers: int = 0
    separate_channels: bool = False

    def request(self) -> TranscriptionRequest:
        """Returns what is asked of the API."""
        return TranscriptionRequest(
            model=self.model,
            stages=self.stages,
            language=self.language or None,
            itn=self.itn,
            words=True,
            speaker_labels="speakers" in self.stages,
            num_speakers=self.num_speakers or None,
            separate_channels=self.separate_channels,
            fields={"hotwords": self.hotwords} if self.hotwords else {},
        )


class ApiClient:
    """Calls the API with a visitor's key.

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
        self._timeout_s = timeout_s + _TIMEOUT_SLACK_S
        self._transport = transport

    async def offer(self, key: str) -> ApiOffer:
        """Returns what the holder of this key is offered.

        Raises:
            ClientError: the key is not accepted, or there is no answer.
        """
        async with self._open(key) as service:
            served = await service.served()
        # A service that is still starting has all of them.
        stages = STAGES if served.stages is None else served.stages
        return ApiOffer(
            served.models,
            tuple(
                stage
                for stage in STAGES
                if stage in stages and (stage != "speakers" or served.speaker_labels)
            ),
            served.hotword_models,
            served.languages,
        )

    async def transcribe(
        self, recording: BinaryIO, order: Order, key: str
    ) -> AsyncGenerator[StreamEvent]:
        """Yields the transcript as it is made; closing it closes the request.

        Raises:
            ClientError: before the first event or after any of them.
        """
        async with (
            self._open(key) as service,
            aclosing(service.stream(recording, order.request())) as events,
        ):
            async for event in events:
                yield event

    @asynccontextmanager
    async def live(self, order: Order, rate_hz: int, key: str) -> AsyncIterator[LiveSession]:
        """Opens a live session, which ends with the block.

        Raises:
            ClientError: the service refuses it, or there is none.
        """
        request = LiveRequest(
            order.model or None, order.language or None, order.hotwords.split(), rate_hz
        )
        async with self._open(key) as service, service.live(request) as session:
            yield session

    async def has_jobs(self, key: str) -> bool:
        """Returns whether the holder of this key can have jobs."""
        try:
            async with self._open(key, max_retries=0) as service:
                await service.jobs.page(limit=1)
        except ClientError:
            return False
        return True

    async def create_job(self, recording: BinaryIO, order: Order, name: str, key: str) -> Job:
        """Makes a job.

        Raises:
            ClientError: the API refuses it.
        """
        metadata = {_NAME: name} if name else {}
        async with self._open(key) as service:
            return await service.jobs.create(recording, order.request(), metadata=metadata)

    async def job(self, job_id: str, key: str) -> Job:
        """Returns a job as it is.

        Raises:
            ClientError: the key has no such job, or there is no answer.
        """
        async with self._open(key, max_retries=0) as service:
            return await service.jobs.get(job_id)

    async def job_result(self, job_id: str, key: str) -> Transcription:
        """Returns the transcript of a completed job.

        Raises:
            ClientError: as `job`, or it is not completed.
        """
        async with self._open(key) as service:
            return await service.jobs.result(job_id)

    async def cancel_job(self, job_id: str, key: str) -> Job:
        """Ends a job.

        Raises:
            ClientError: as `job`.
        """
        async with self._open(key) as service:
            return await service.jobs.cancel(job_id)

    async def delete_job(self, job_id: str, key: str) -> None:
        """Removes a job, its recording and its transcript.

        Raises:
            ClientError: as `job`.
        """
        async with self._open(key) as service:
            await service.jobs.delete(job_id)

    def _open(self, key: str, max_retries: int = _MAX_RETRIES) -> AsyncParaserve:
        return AsyncParaserve(
            self._base_url,
            key,
            timeout_s=self._timeout_s,
            max_retries=max_retries,
            transport=self._transport,
        )


Problem: TypeAlias = Literal[
    "key_missing",
    "key_refused",
    "model_unknown",
    "too_large",
    "too_long",
    "not_audio",
    "damaged",
    "too_short",
    "busy",
    "not_ready",
    "too_late",
    "unreachable",
    "refused",
    "failed",
    "job_gone",
    "jobs_full",
    "quota_used_up",
    # The page's own.
    "page_busy",
    "render_failed",
    "empty_file",
    "upload_lost",
    "upload_failed",
    "interrupted",
    "page_unknown",
]
"""What went wrong; `texts` has the words."""

PROBLEMS: tuple[Problem, ...] = get_args(Problem)

_BY_CODE: dict[str, Problem] = {
    "job_not_found": "job_gone",
    "quota_exceeded": "quota_used_up",
    "job_queue_full": "jobs_full",
    "audio_too_long": "too_long",
    "audio_too_short": "too_short",
    "unknown_audio_format": "not_audio",
    "corrupt_audio": "damaged",
    "truncated_audio": "damaged",
    "unsupported_audio_layout": "damaged",
    "invalid_samples": "damaged",
    "invalid_audio": "damaged",
    "unreachable": "unreachable",
    "not_the_api": "unreachable",
    "live_not_served": "refused",
}
_BY_STATUS: dict[int, Problem] = {
    401: "key_missing",
    403: "key_refused",
    404: "model_unknown",
    413: "too_large",
    429: "busy",
    503: "not_ready",
    504: "too_late",
}
_FIRST_SERVER_ERROR = 500


def problem_of(refusal: ClientError, *, with_key: bool) -> Problem:
    """Returns what went wrong, in the page's terms.

    Args:
        refusal: by the API.
        with_key: True if a key was sent.
    """
    if refusal.code in _BY_CODE:
        return _BY_CODE[refusal.code]
    if refusal.status == 401 and with_key:
        return "key_refused"
    other: Problem = "failed" if refusal.status >= _FIRST_SERVER_ERROR else "refused"
    return _BY_STATUS.get(refusal.status, other)


def refusal_response(
    problem: Problem, status: int, detail: str = "", retry_after_s: int | None = None
) -> JSONResponse:
    """Returns how the page refuses a request.

    Args:
        problem: what went wrong.
        status: of HTTP.
        detail: in English, for whoever wants to know more.
        retry_after_s: when to try again, if that helps.
    """
    body = {"problem": problem, "detail": detail, "retry_after_s": retry_after_s}
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return JSONResponse(body, status, headers)
