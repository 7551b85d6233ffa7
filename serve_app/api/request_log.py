"""The request id, and the one log line that each request writes at its end."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from fastapi import Request

from serve_app.api.screening import request_id_in
from serve_app.core.records import ANONYMOUS, RequestCost
from serve_app.scheduling.admission import AdmissionStatistics

TRACEPARENT_HEADER = "traceparent"
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def request_id_of(request: Request) -> str:
    """Returns the caller's request id if it is well-formed, else a new one."""
    return request_id_in(request.scope)


def traceparent_of(request: Request) -> str | None:
    """Returns the caller's trace context if it is well-formed.

    Source: W3C Trace Context, version 00.
    """
    given = request.headers.get(TRACEPARENT_HEADER, "")
    return given if _TRACEPARENT.fullmatch(given) else None


@dataclass(slots=True)
class RequestLog:
    """The content of a request's log line; never audio, text or a key's secret.

    Attributes:
        request_id: the caller's or a new one.
        started: monotonic time of its arrival.
        key: name of the caller's key.
        status: HTTP status of the answer; 200 for a stream, also for one that ended in an
            error; 499 if the caller left before the end.
        code: error code, of an error in the stream as well.
        waited_s: time in the queue.
        upload_bytes: of the file.
        audio_s: length of the recording, 0 if it never became known.
        num_channels: channels that were recognized, each for itself; 1 for their mix.
        num_chunks: chunks that were recognized or failed.
        num_failed_ranges: ranges that are missing from the text.
        stages: requested stages.
        model: requested pack; None for the default.
        language: requested code, None without one.
        ignored_fields: names of unknown fields, up to a limit.
        num_speakers: speakers that were told apart; None without labels.
        lacks_labels: whether labels were asked for and could not be made.
        transcribed_s: audio whose text was made so far, times the separate channels.
        cost: time by stage, and retries.
    """

    request_id: str
    started: float
    key: str = ANONYMOUS
    status: int = 0
    code: str | None = None
    waited_s: float = 0.0
    upload_bytes: int = 0
    audio_s: float = 0.0
    num_channels: int = 1
    num_chunks: int = 0
    num_failed_ranges: int = 0
    stages: str = ""
    model: str | None = None
    language: str | None = None
    ignored_fields: tuple[str, ...] = ()
    num_speakers: int | None = None
    lacks_labels: bool = False
    transcribed_s: float = 0.0
    cost: RequestCost = field(default_factory=RequestCost)

    @property
    def is_partial(self) -> bool:
        return self.num_failed_ranges > 0

    @property
    def recognized_audio_s(self) -> float:
        """Length of the recording, times its separate channels."""
        return self.audio_s * self.num_channels

    @property
    def duration_s(self) -> float:
        return time.monotonic() - self.started

    def write(self, logger: logging.Logger) -> None:
        fields = {
            "paraserve_request_id": self.request_id,
            "key": self.key,
            "status": self.status,
            "code": self.code,
            "duration_s": round(self.duration_s, 4),
            "waited_s": round(self.waited_s, 4),
            "upload_bytes": self.upload_bytes,
            "audio_s": round(self.audio_s, 3),
            "num_channels": self.num_channels,
            "num_chunks": self.num_chunks,
            "num_failed_ranges": self.num_failed_ranges,
            "partial": self.is_partial,
            "stages": self.stages,
            "model": self.model,
            "language": self.language,
            "ignored_fields": list(self.ignored_fields),
            "decode_s": round(self.cost.decode_s, 4),
            "recognize_s": round(self.cost.recognize_s, 4),
            "punctuate_s": round(self.cost.punctuate_s, 4),
            "embed_s": round(self.cost.embed_s, 4),
            "num_speakers": self.num_speakers,
            "num_retries": self.cost.num_retries,
        }
        logger.info("transcription request", extra=fields)


class RequestObserver(Protocol):
    """Observes requests, for metrics."""

    def watch(
        self, line: Callable[[], AdmissionStatistics], keys_stale_s: Callable[[], float]
    ) -> None:
        """Receives functions to sample regularly; called once, inside or outside of the loop.

        Args:
            line: returns the state of the queue.
            keys_stale_s: returns the time since the API keys were last read successfully.
        """
        ...

    def ended(self, log: RequestLog) -> None:
        """Records a request that was answered, rejected or canceled."""
        ...


class NoObserver:
    """Ignores all requests."""

    def watch(
        self, line: Callable[[], AdmissionStatistics], keys_stale_s: Callable[[], float]
    ) -> None:
        pass

    def ended(self, log: RequestLog) -> None:
        pass
