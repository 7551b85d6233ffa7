"""What is remembered of a request: its id, and the one log line at its end."""

from __future__ import annotations

import logging
import re
import time
import uuid
from dataclasses import dataclass

from fastapi import Request

REQUEST_ID_HEADER = "X-Request-ID"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def request_id_of(request: Request) -> str:
    """Returns the caller's request id if it is well-formed, else a new one."""
    given = request.headers.get(REQUEST_ID_HEADER, "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


@dataclass(slots=True)
class RequestLog:
    """What the one log line of a request says; never audio or text."""

    request_id: str
    started: float
    status: int = 0
    code: str | None = None
    upload_bytes: int = 0
    audio_s: float = 0.0
    num_chunks: int = 0
    num_failed_ranges: int = 0
    stages: str = ""

    def write(self, logger: logging.Logger) -> None:
        fields = {
            "paraserve_request_id": self.request_id,
            "status": self.status,
            "code": self.code,
            "duration_s": round(time.monotonic() - self.started, 4),
            "upload_bytes": self.upload_bytes,
            "audio_s": round(self.audio_s, 3),
            "num_chunks": self.num_chunks,
            "num_failed_ranges": self.num_failed_ranges,
            "stages": self.stages,
        }
        logger.info("transcription request", extra=fields)
