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
from serve_app.client.client import DEFAULT_URL, AsyncParaserve, Paraserve
from serve_app.client.errors import ClientError, ServiceRefusal, ServiceUnreachable
from serve_app.client.job_records import (
    FINAL_STATUSES,
    Job,
    JobFailure,
    JobPage,
    JobPriority,
    JobProgress,
    JobStatus,
    JobWebhook,
)
from serve_app.client.jobs import RESUMABLE_BYTES, AsyncJobs, Jobs
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
from serve_app.client.usage import MonthUsage, UsageOfKind
from serve_app.client.webhooks import WebhookEvent, WebhookRefused, verify_webhook

__all__ = [
    "DEFAULT_URL",
    "FINAL_STATUSES",
    "RESUMABLE_BYTES",
    "AsyncJobs",
    "AsyncParaserve",
    "ClientError",
    "FailedSpan",
    "Job",
    "JobFailure",
    "JobPage",
    "JobPriority",
    "JobProgress",
    "JobStatus",
    "JobWebhook",
    "Jobs",
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
    "MonthUsage",
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
    "UsageOfKind",
    "WebhookEvent",
    "WebhookRefused",
    "Word",
    "service_url",
    "verify_webhook",
]
