"""A `TranscriptionService` that says what the test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from serve_app.api.parameters import Offer
from serve_app.api.service import TranscriptionJob
from serve_app.core.records import (
    STAGES,
    HotwordCheck,
    RecognitionOptions,
    RecordingEnd,
    RequestContext,
    Stage,
    StageReadiness,
    Token,
    UtteranceSummary,
)
from serve_app.transcript.transcript import FailedRange, MarkedToken, Sentence, TranscriptEvent


def sentence(text: str, start_ms: int, mark: str = "。") -> Sentence:
    tokens = [
        Token(word, start_ms + i * 200, start_ms + (i + 1) * 200, 0.9)
        for i, word in enumerate(text)
    ]
    marked = [MarkedToken(token) for token in tokens]
    marked[-1] = MarkedToken(tokens[-1], mark)
    return Sentence(tuple(marked))


class FakeService:
    """Yields the same events for every job, and remembers the jobs.

    Attributes:
        events: what is yielded before the recording's end.
        error: raised after the events, if set.
        error_at_end: raised instead of the recording's end, if set.
        other_models: served beside the first.
        languages: that a request may name.
        default_language: of requests that name none; None for one that is guessed.
        end: tells of the utterances, at last.
        hotword_problem: why hotwords are of no use, if set.
        unwritable: hotwords that cannot be written.
        changed: what its offer has otherwise.
        keep_uploads: remember the jobs, and with them the recordings.
        until: waited for before the recording's end, if set.
        hang: never end, if set; `canceled` tells that the caller gave up.
    """

    def __init__(self, stages: tuple[Stage, ...] = STAGES) -> None:
        self.stages = stages
        self.other_models: tuple[str, ...] = ()
        self.languages: tuple[str, ...] = ("zh",)
        self.default_language: str | None = "zh"
        self.end = RecordingEnd(2000, SPANS)
        self.events: list[TranscriptEvent] = [sentence("你好", 0), sentence("再见", 1000)]
        self.error: Exception | None = None
        self.error_at_end: BaseException | None = None
        self.not_ready: Exception | None = None
        self.until: asyncio.Event | None = None
        self.hang = False
        self.canceled = False
        self.keep_uploads = True
        self.hotword_problem: str | None = None
        self.unwritable: frozenset[str] = frozenset()
        self.changed: dict[str, Any] = {}
        self.recognition_options: list[RecognitionOptions] = []
        self.jobs: list[TranscriptionJob] = []
        self.uploads: list[bytes] = []

    @property
    def offer(self) -> Offer:
        offer = Offer(
            "paraformer-demo",
            ("whisper-1",),
            self.languages,
            self.stages,
            self.default_language,
            self.other_models,
        )
        return replace(offer, **self.changed)

    async def check_hotwords(
        self, recognition_options: RecognitionOptions, context: RequestContext
    ) -> HotwordCheck:
        self.recognition_options.append(recognition_options)
        unwritable = (
            word.text for word in recognition_options.hotwords if word.text in self.unwritable
        )
        return HotwordCheck(self.hotword_problem, tuple(unwritable))

    async def transcribe(self, job: TranscriptionJob) -> AsyncGenerator[TranscriptEvent]:
        if self.keep_uploads:
            self.jobs.append(job)
        self.uploads.append(job.audio.tobytes())
        for event in self.events:
            yield event
        if self.error is not None:
            raise self.error
        if self.until is not None:
            await self.until.wait()
        if self.hang:
            try:
                await asyncio.Event().wait()
            finally:
                self.canceled = True
        if self.error_at_end is not None:
            raise self.error_at_end
        yield self.end

    async def readiness(self) -> list[StageReadiness]:
        if self.not_ready is not None:
            raise self.not_ready
        return [StageReadiness("asr", "cpu", "paraformer-demo", "abc", dtype="float32")]


SPANS = (UtteranceSummary(0, 900, "done"), UtteranceSummary(950, 1400, "done"))
FAILED_RANGE = FailedRange(500, 900, "engine_error: x")
