"""The words of a segment with their marks, from its audio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from serve_app.core.records import Chunk, ChunkFailure, Pcm, RequestContext
from serve_app.live.ports import Label, Recognize
from serve_app.live.records import SessionOptions
from serve_app.live.stable_text import sentences_of
from serve_app.transcript.fanout import to_recording_time
from serve_app.transcript.itn import TextRules, apply_rules
from serve_app.transcript.sentences import SentenceAssembler
from serve_app.transcript.transcript import MarkedToken, Sentence, TranscriptEvent


@dataclass(frozen=True, slots=True)
class SegmentWords:
    """What was recognized.

    Attributes:
        words: with their marks, in the session's time.
        language: code of the detected language, if the recognizer reports one.
    """

    words: tuple[MarkedToken, ...] = ()
    language: str | None = None


class SegmentDecoder:
    """Has the audio of segments recognized and punctuated.

    Args:
        context: of the session.
        recognize: recognizes chunks.
        label: predicts the marks; None for texts without marks.
    """

    def __init__(self, context: RequestContext, recognize: Recognize, label: Label | None) -> None:
        self._context = context
        self._recognize = recognize
        self._label = label

    async def decode(
        self, segment: int, start_ms: int, pcm: Pcm, options: SessionOptions
    ) -> SegmentWords | ChunkFailure:
        """Returns the words of a segment, or why there are none.

        Args:
            segment: its number.
            start_ms: where it starts in the session.
            pcm: its samples, shape [n].
            options: of the segment.

        Raises:
            Exception: from the recognizer or the punctuator.
        """
        # Urgent is what starts early in a recording: each segment is one of its own.
        sent = Chunk(self._context, segment, 0, pcm, options.recognition_options)
        (result,) = await self._recognize([sent])
        if isinstance(result, ChunkFailure):
            return result
        here = Chunk(self._context, segment, start_ms, pcm, options.recognition_options)
        tokens = to_recording_time(here, result).tokens
        if not tokens or self._label is None or not options.punctuate:
            return SegmentWords(tuple(MarkedToken(token) for token in tokens), result.language)
        said = [token.text for token in tokens]
        marks = await self._label(self._context, said)
        assembler = SentenceAssembler()
        assembler.push(tokens)
        sentences = assembler.mark(tuple(zip(said, marks, strict=True)))
        sentences += assembler.flush()
        words = tuple(marked for sentence in sentences for marked in sentence.tokens)
        return SegmentWords(words, result.language)


async def rewritten(words: Sequence[MarkedToken], rules: TextRules) -> tuple[MarkedToken, ...]:
    """Returns the words of a segment with the rules applied."""

    async def sentences() -> AsyncGenerator[TranscriptEvent]:
        for sentence in sentences_of(words):
            yield sentence

    return tuple(
        [
            marked
            async for sentence in apply_rules(sentences(), rules)
            if isinstance(sentence, Sentence)
            for marked in sentence.tokens
        ]
    )
