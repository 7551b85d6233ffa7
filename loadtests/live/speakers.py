"""Speakers at real-time pace, and what each was told and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from loadtests.harness.clips import RATE_HZ
from loadtests.live.talks import Talk
from serve_app.client import (
    AsyncParaserve,
    ClientError,
    LiveEnded,
    LiveError,
    LiveEvent,
    LiveFailure,
    LiveFinal,
    LivePartial,
    LiveRequest,
    LiveSession,
    LiveSpeechStarted,
    LiveSpeechStopped,
)

SILENCE_S = 0.8
"""Silence after which the service is asked to end a segment."""

_PIECE_S = 0.1
_SPREAD_S = 4.0
_END_LIMIT_S = 120.0
_REQUEST = LiveRequest(model="whisper-1", rate_hz=RATE_HZ, silence_s=SILENCE_S)


@dataclass(slots=True)
class _Segment:
    start_s: float | None = None
    end_s: float | None = None
    stopped_at_s: float | None = None
    is_told: bool = False
    deltas: str = ""


@dataclass(slots=True)
class SpeakerResult:
    """What became of one session; all times in s.

    Attributes:
        spoken: its text.
        texts: of the segments, in the order in which they came.
        first_partials_s: of each segment, from when its speech began to its first text.
        finals_s: of each segment, from when the service could know of its end, by the silence or
            by its own word for it, to its text.
        lags_s: of each segment, how long after that silence its end was told.
        num_retracted: segments whose deltas were not their text.
        num_failed: segments without text.
        sent_late_s: how long after its time the generator came to send a piece, at most.
        problem: why it ended before its time; "" if it did not.
    """

    spoken: str
    texts: list[str] = field(default_factory=list)
    first_partials_s: list[float] = field(default_factory=list)
    finals_s: list[float] = field(default_factory=list)
    lags_s: list[float] = field(default_factory=list)
    num_retracted: int = 0
    num_failed: int = 0
    sent_late_s: float = 0.0
    problem: str = ""

    @property
    def text(self) -> str:
        return "".join(self.texts)


class _Speaker:
    """One session.

    Latencies count from when a sound was due to be spoken, so that a service that stops reading
    cannot hide its delay.
    """

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._began_s = 0.0
        self._segments: dict[str, _Segment] = {}
        self.result = SpeakerResult(talk.text)

    async def run(self, client: AsyncParaserve, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        try:
            async with client.live(_REQUEST) as session:
                await self._talk_through(session)
        except LiveEnded as ended:
            self.result.problem = f"{ended.code} at {ended.position_s:.1f} s: {ended}"
        except ClientError as error:
            self.result.problem = f"{error.code}: {error}"
        except TimeoutError:
            self.result.problem = f"not finished {_END_LIMIT_S:.0f} s after the last sound"

    async def _talk_through(self, session: LiveSession) -> None:
        self._began_s = time.monotonic()
        sending = asyncio.create_task(self._send(session))
        try:
            async with asyncio.timeout(self._talk.audio_s + _END_LIMIT_S):
                async for event in session:
                    self._take(event, time.monotonic() - self._began_s)
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending

    async def _send(self, session: LiveSession) -> None:
        piece_bytes = 2 * round(_PIECE_S * RATE_HZ)
        pcm = self._talk.pcm
        with suppress(LiveEnded):
            for number, start in enumerate(range(0, len(pcm), piece_bytes)):
                due_s = self._began_s + (number + 1) * _PIECE_S
                await asyncio.sleep(due_s - time.monotonic())
                late_s = time.monotonic() - due_s
                self.result.sent_late_s = max(self.result.sent_late_s, late_s)
                await session.send(pcm[start : start + piece_bytes])
            await session.finish()

    def _take(self, event: LiveEvent, at_s: float) -> None:
        if isinstance(event, LiveError):
            return
        segment = self._segments.setdefault(event.item_id, _Segment())
        if isinstance(event, LiveSpeechStarted):
            segment.start_s = event.start_s
        elif isinstance(event, LiveSpeechStopped):
            segment.end_s, segment.stopped_at_s = event.end_s, at_s
        elif isinstance(event, LivePartial):
            segment.deltas = event.text
            if event.delta and not segment.is_told and segment.start_s is not None:
                segment.is_told = True
                self.result.first_partials_s.append(at_s - segment.start_s)
        elif isinstance(event, LiveFailure):
            self.result.num_failed += 1
        elif isinstance(event, LiveFinal):
            self._end(event, segment, at_s)

    def _end(self, event: LiveFinal, segment: _Segment, at_s: float) -> None:
        self.result.texts.append(event.text)
        self.result.num_retracted += segment.deltas != event.text
        if segment.stopped_at_s is None or segment.end_s is None:
            return
        # The end of the audio ends a segment as well.
        known_s = min(segment.end_s + SILENCE_S, self._talk.audio_s)
        self.result.finals_s.append(at_s - min(known_s, segment.stopped_at_s))
        self.result.lags_s.append(max(0.0, segment.stopped_at_s - known_s))


async def run_speakers(url: str, talks: Sequence[Talk]) -> list[SpeakerResult]:
    """Has all of them speak at once, each from its beginning to its end.

    Args:
        url: of the service.
        talks: one for each speaker; they begin within a few seconds.
    """
    speakers = [_Speaker(talk) for talk in talks]
    async with AsyncParaserve(url, "", max_retries=2) as client, asyncio.TaskGroup() as tasks:
        for number, speaker in enumerate(speakers):
            tasks.create_task(speaker.run(client, _SPREAD_S * number / len(speakers)))
    return [speaker.result for speaker in speakers]
