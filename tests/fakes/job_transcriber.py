"""A transcriber of jobs that recognizes a second of audio a step, as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence

from serve_app.api.job_requests import job_error
from serve_app.core.errors import ParaserveError
from serve_app.core.records import Token, Utterance
from serve_app.jobs.attempt import JobTask, Transcriber
from serve_app.jobs.records import JobError
from serve_app.transcript.transcript import MarkedToken, Sentence, Transcript

STEP_MS = 1000


class ScriptedTranscriber:
    """Says the bytes of the recording, one utterance of a second for each.

    Attributes:
        errors: raised by the next calls, one each, before the last utterance.
        pause_at: index of the utterance before which it waits for `goes_on`; None for nowhere.
        recognized: indices that were not known, by job.
        num_begun, num_cancelled: calls so far.
    """

    made_by = "fake"

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.pause_at: int | None = None
        self.goes_on = asyncio.Event()
        self.reached = asyncio.Event()
        self.recognized: dict[str, list[int]] = {}
        self.num_begun = 0
        self.num_cancelled = 0

    def audio_names(self, request: bytes) -> Sequence[str]:
        names: list[str] = json.loads(request)["audio"]
        return names

    def job_error(self, error: ParaserveError) -> JobError:
        return job_error(error)

    async def transcribe(
        self, task: JobTask, on_utterance: Callable[[Utterance], None]
    ) -> Transcript:
        self.num_begun += 1
        known = {utterance.index: utterance for utterance in task.known}
        sentences: list[Sentence] = []
        try:
            for index, byte in enumerate(task.audio.tolist()):
                if index == self.pause_at:
                    self.reached.set()
                    await self.goes_on.wait()
                if index == len(task.audio) - 1 and self.errors:
                    raise self.errors.pop(0)
                utterance = known.get(index) or said(index, byte)
                if index not in known:
                    self.recognized.setdefault(task.job.id, []).append(index)
                on_utterance(utterance)
                sentences.append(Sentence(tuple(map(MarkedToken, utterance.tokens))))
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        return Transcript(len(task.audio) * STEP_MS, tuple(sentences))


def said(index: int, byte: int) -> Utterance:
    start_ms = index * STEP_MS
    token = Token(chr(byte), start_ms, start_ms + STEP_MS, 0.5)
    return Utterance(index, start_ms, start_ms + STEP_MS, "done", (token,))


_: type[Transcriber] = ScriptedTranscriber
