"""What live sessions need of models, in process: the demo packs, and recognizers with a script."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from serve_app.core.ports import VoiceActivityDetector
from serve_app.core.records import (
    Chunk,
    ChunkFailure,
    Recognition,
    RequestContext,
    Token,
)
from serve_app.inference.batched import recognizer_limits
from serve_app.inference.loading import load_punctuator, load_vad
from serve_app.inference.recognizer_models import RecognizerModels
from serve_app.live.records import (
    AudioFormat,
    FinalText,
    LiveEvent,
    PartialText,
    SegmentFailed,
    SessionOptions,
    SpeechStarted,
    SpeechStopped,
)
from serve_app.live.segmenting import VAD_BLOCK_FRAMES, Boundary
from serve_app.live.session import Session, SessionLimits, SessionModels
from serve_app.settings import Settings
from serve_app.transcript.punctuation import PunctuationState
from serve_app.transcript.sentences import PunctuationTask, punctuate_tasks
from tests.fakes.engines import FakeVad

PCM_16K = AudioFormat("pcm16", 16_000)
CONTEXT = RequestContext("live-1")


async def run_here(step: Callable[[], list[Boundary]], context: RequestContext) -> list[Boundary]:
    return step()


@asynccontextmanager
async def demo_models() -> AsyncIterator[SessionModels]:
    """The built-in demo packs, as `LocalTranscriber` loads them."""
    settings = Settings()
    recognizer = RecognizerModels(
        settings,
        replace(recognizer_limits(settings), max_s=None),
        logging.getLogger(__name__),
    ).cache
    punctuator = load_punctuator(settings).engine
    vad = load_vad(settings, VAD_BLOCK_FRAMES).engine

    async def label(context: RequestContext, words: Sequence[str]) -> list[str]:
        task = PunctuationTask(context, PunctuationState(), tuple(words), final=True)
        result = await asyncio.to_thread(punctuate_tasks, punctuator, [task])
        return [mark for _, mark in result[0].pairs]

    try:
        yield SessionModels(recognizer.transcribe, label, vad, run_here)
    finally:
        await recognizer.close()


@dataclass
class ScriptedRecognizer:
    """Recognizes what `say` makes of a chunk.

    Attributes:
        say: returns the words of a chunk; by default those of `speech`.
        gate: waited for before each answer.
        failures: raised or returned by the next calls, None for none.
        num_calls: so far.
    """

    say: Callable[[Chunk], Recognition] | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    failures: list[Exception | ChunkFailure | None] = field(default_factory=list)
    num_calls: int = 0
    most_samples: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    async def __call__(self, chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        self.num_calls += 1
        self.most_samples = max(self.most_samples, *(chunk.num_samples for chunk in chunks))
        await self.gate.wait()
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, Exception):
            raise failure
        if failure is not None:
            return [failure]
        return [(self.say or tenths)(chunk) for chunk in chunks]


def speech(num_words: int, first: int = 1) -> bytes:
    """Words of 100 ms, each with a level of its own: positive in its first half, then negative."""
    levels = np.arange(first, first + num_words) % 4999 + 1
    halves = np.stack((levels, -levels), axis=1).astype(np.int16)
    return np.repeat(halves.ravel(), 800).tobytes()


def silence(num_tenths: int) -> bytes:
    return bytes(num_tenths * 3200)


def words_of(num_words: int, first: int = 1) -> str:
    """The words of `speech`, as `tenths` recognizes them."""
    return "".join(chr(0x4E00 + level) for level in np.arange(first, first + num_words) % 4999 + 1)


def tenths(chunk: Chunk) -> Recognition:
    """Recognizes the words whose middle is in the chunk, wherever it begins."""
    negative = chunk.pcm < 0
    middles = (np.flatnonzero(negative[1:] & (chunk.pcm[:-1] > 0)) + 1).tolist()
    if len(negative) >= 800 and negative[:800].all() and len(set(chunk.pcm[:800].tolist())) == 1:
        middles = [0, *middles]
    return Recognition(
        tuple(
            Token(
                chr(0x4E00 - int(chunk.pcm[middle])),
                max(0, middle - 800) // 16,
                min(len(negative), middle + 800) // 16,
                0.9,
            )
            for middle in middles
        ),
        language="zh",
    )


def scripted_models(
    recognizer: ScriptedRecognizer, vad: VoiceActivityDetector | None = None
) -> SessionModels:
    return SessionModels(recognizer, None, vad if vad is not None else FakeVad(), run_here)


def new_session(
    models: SessionModels,
    options: SessionOptions | None = None,
    audio: AudioFormat = PCM_16K,
    limits: SessionLimits | None = None,
    clock: Callable[[], float] = lambda: 0.0,
) -> Session:
    return Session(
        CONTEXT,
        audio,
        options or SessionOptions(),
        models,
        limits or SessionLimits(),
        clock=clock,
    )


async def settle() -> None:
    """Lets the session do all that it can do now."""
    for _ in range(30):
        await asyncio.sleep(0)


async def rest_of(session: Session) -> list[LiveEvent]:
    return [event async for event in session.events()]


def finals_of(events: Sequence[LiveEvent]) -> list[FinalText]:
    return [event for event in events if isinstance(event, FinalText)]


def check_order(events: Sequence[LiveEvent]) -> None:
    """Checks what every session's events must be, whatever happened to it."""
    told: dict[int, str] = {}
    started, stopped, ended = -1, -1, -1
    for event in events:
        match event:
            case SpeechStarted(segment, _):
                assert segment == started + 1
                assert stopped == started
                started = segment
                told[segment] = ""
            case PartialText(segment, delta):
                assert delta
                assert ended < segment <= started
                told[segment] += delta
            case SpeechStopped(segment, _):
                assert segment == started == stopped + 1
                stopped = segment
            case FinalText(segment, start_ms, end_ms, sentences, text, _):
                assert segment == ended + 1 <= stopped
                assert text == told[segment]
                words = [marked.token for sentence in sentences for marked in sentence.tokens]
                assert all(start_ms <= word.start_ms <= word.end_ms for word in words)
                assert all(word.end_ms <= end_ms for word in words)
                ended = segment
            case SegmentFailed(segment, _, _, _, _):
                assert segment == ended + 1 <= stopped
                ended = segment
    assert started == stopped == ended
