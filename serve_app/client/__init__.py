"""The Python client of the service's HTTP API.

    from serve_app.client import Paraserve

    with Paraserve("http://localhost:8000") as service:
        transcript = service.transcribe("meeting.m4a")
        for segment in transcript.segments:
            print(segment.start_s, segment.text)

`AsyncParaserve` is the same for asyncio, and has `live`. They need nothing of the service but
httpx; `live` needs websockets.
"""

from serve_app.client.answers import (
    FailedSpan,
    Rendered,
    Segment,
    Served,
    StreamEnd,
    StreamEvent,
    StreamSegment,
    StreamSentence,
    Transcription,
    Word,
)
from serve_app.client.client import AsyncParaserve, Paraserve
from serve_app.client.errors import ClientError, ServiceRefusal, ServiceUnreachable
from serve_app.client.live import LiveRequest, LiveSession
from serve_app.client.live_events import (
    LiveEnded,
    LiveError,
    LiveEvent,
    LiveFailure,
    LiveFinal,
    LivePartial,
    LiveSpeechStarted,
    LiveSpeechStopped,
)
from serve_app.client.requests import TranscriptionRequest, service_url

__all__ = [
    "AsyncParaserve",
    "ClientError",
    "FailedSpan",
    "LiveEnded",
    "LiveError",
    "LiveEvent",
    "LiveFailure",
    "LiveFinal",
    "LivePartial",
    "LiveRequest",
    "LiveSession",
    "LiveSpeechStarted",
    "LiveSpeechStopped",
    "Paraserve",
    "Rendered",
    "Segment",
    "Served",
    "ServiceRefusal",
    "ServiceUnreachable",
    "StreamEnd",
    "StreamEvent",
    "StreamSegment",
    "StreamSentence",
    "Transcription",
    "TranscriptionRequest",
    "Word",
    "service_url",
]
