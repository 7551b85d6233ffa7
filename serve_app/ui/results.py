"""The page's view of a transcription: what its script is sent."""

from __future__ import annotations

import json
import math
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from serve_app.client import (
    Segment,
    StreamEnd,
    StreamEvent,
    StreamSegment,
    StreamSentence,
    Transcription,
    Word,
)
from serve_app.ui.client import ApiOffer, Problem

State: TypeAlias = Literal["idle", "sent", "running", "done", "failed"]
Json: TypeAlias = dict[str, object]
_ROUNDING_S = 0.0005


@dataclass(slots=True)
class ShownResult:
    """The transcript so far.

    Attributes:
        run: the browser's id of the transcription; "" for what concerns the whole page.
        sentences: each as JSON. Gradio compares each value with the one before and sends the
            difference; a string is compared and searched for files in one step.
        labelled: at the end, the sentences divided by speakers, with their labels; empty without
            labels.
        duration_s: of the recording, once known.
        failed_ranges_ms: spans without text.
        offer: what the API serves, for the whole page.
    """

    run: str
    state: State = "sent"
    sentences: list[str] = field(default_factory=list)
    labelled: list[str] = field(default_factory=list)
    duration_s: int | None = None
    failed_ranges_ms: tuple[tuple[int, int], ...] = ()
    problem: Problem | None = None
    detail: str = ""
    retry_after_s: int | None = None
    offer: ApiOffer | None = None
    _words: defaultdict[int | None, deque[Word]] = field(default_factory=lambda: defaultdict(deque))

    def add(self, event: StreamEvent) -> None:
        if isinstance(event, StreamSentence):
            self.state = "running"
            self.sentences.append(_sentence_json(event))
            self._words[event.channel].extend(event.words)
        elif isinstance(event, StreamSegment):
            self.labelled.append(self._labelled_json(event))
        elif isinstance(event, StreamEnd):
            self.state = "done"
            self.duration_s = math.ceil(event.duration_s)
            self.failed_ranges_ms = tuple(
                (_ms(failed.start_s), _ms(failed.end_s)) for failed in event.failed
            )

    def fail(self, problem: Problem, detail: str = "", retry_after_s: int | None = None) -> None:
        self.state = "failed"
        self.problem, self.detail, self.retry_after_s = problem, detail, retry_after_s

    def shown(self) -> Json:
        """Returns what the page's script reads."""
        return {
            "run": self.run,
            "state": self.state,
            "sentences": list(self.sentences),
            "labelled": list(self.labelled) if self.state == "done" else [],
            "duration_s": self.duration_s,
            "failed_ranges": [list(span) for span in self.failed_ranges_ms],
            "problem": self.problem,
            "detail": self.detail,
            "retry_after_s": self.retry_after_s,
            "offer": None if self.offer is None else self.offer.shown(),
        }

    def _labelled_json(self, segment: StreamSegment) -> str:
        return _segment_json(segment, self._words[segment.channel])


def transcript_json(transcript: Transcription) -> Json:
    """Returns a whole transcript as the page's script reads it."""
    words: defaultdict[int | None, deque[Word]] = defaultdict(deque)
    for word in transcript.words:
        words[word.channel].append(word)
    return {
        "sentences": [
            _segment_json(segment, words[segment.channel]) for segment in transcript.segments
        ],
        "duration_s": math.ceil(transcript.duration_s),
        "failed_ranges": [[_ms(one.start_s), _ms(one.end_s)] for one in transcript.failed],
    }


def _segment_json(segment: Segment | StreamSegment, following: deque[Word]) -> str:
    """Returns a segment with its words, which are the next ones of its channel."""
    words: list[Word] = []
    while following and following[0].end_s <= segment.end_s + _ROUNDING_S:
        words.append(following.popleft())
    said = StreamSentence(
        segment.start_s, segment.end_s, segment.text, tuple(words), segment.channel
    )
    return _sentence_json(said, segment.speaker)


def _sentence_json(said: StreamSentence, speaker: str | None = None) -> str:
    words = [
        [word.text, _ms(word.start_s), _ms(word.end_s), word.confidence] for word in said.words
    ]
    sentence: Json = {
        "start": _ms(said.start_s),
        "end": _ms(said.end_s),
        "text": said.text.strip(),
        "words": words,
    }
    if speaker is not None:
        sentence["speaker"] = speaker
    if said.channel is not None:
        sentence["channel"] = said.channel
    return json.dumps(sentence, ensure_ascii=False, separators=(",", ":"))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
