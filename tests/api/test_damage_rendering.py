from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

from serve_app.api.responses import sse_events
from serve_app.core.records import DamagedRange, RecordingEnd
from serve_app.transcript.transcript import FailedRange, TranscriptEvent, collect

END = RecordingEnd(
    9000, damage=(DamagedRange(500, 900, "the data is damaged"),), notices=("It is odd.",)
)


async def events() -> AsyncGenerator[TranscriptEvent]:
    yield FailedRange(2000, 3000, "engine_error: x")
    yield END


def test_damage_makes_a_transcript_partial_and_stands_in_order_of_time() -> None:
    transcript = asyncio.run(collect(events()))

    assert transcript.partial
    assert [(one.start_ms, one.reason) for one in transcript.failures] == [
        (500, "damaged"),
        (2000, "recognition_failed"),
    ]
    assert transcript.failures[0].error == "damaged_audio: the data is damaged"
    assert transcript.notices == ("It is odd.",)


def test_a_stream_ends_with_the_damage() -> None:
    async def last() -> str:
        return [event async for event in sse_events(events())][-1]

    done = json.loads(asyncio.run(last()).removeprefix("data: "))

    assert done["partial"] is True
    assert [one["reason"] for one in done["failed_ranges"]] == ["damaged", "recognition_failed"]
