"""The page's view of a transcription: what its script is sent."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from serve_app.client import StreamEnd, StreamEvent, StreamSentence
from serve_app.ui.client import ApiOffer, Problem

State: TypeAlias = Literal["idle", "sent", "running", "done", "failed"]
Json: TypeAlias = dict[str, object]


@dataclass(slots=True)
class ShownResult:
    """The transcript so far.

    Attributes:
        run: the browser's id of the transcription; "" for what concerns the whole page.
        sentences: each as JSON. Gradio compares each value with the one before and sends the
            difference; a string is compared and searched for files in one step.
        duration_s: of the recording, once known.
        failed_ranges_ms: spans without text.
        offer: what the API serves, for the whole page.
    """

    run: str
    state: State = "sent"
    sentences: list[str] = field(default_factory=list)
    duration_s: int | None = None
    failed_ranges_ms: tuple[tuple[int, int], ...] = ()
    problem: Problem | None = None
    detail: str = ""
    retry_after_s: int | None = None
    offer: ApiOffer | None = None

    def add(self, event: StreamEvent) -> None:
        if isinstance(event, StreamSentence):
            self.state = "running"
            self.sentences.append(_sentence_json(event))
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
            "duration_s": self.duration_s,
            "failed_ranges": [list(span) for span in self.failed_ranges_ms],
            "problem": self.problem,
            "detail": self.detail,
            "retry_after_s": self.retry_after_s,
            "offer": None if self.offer is None else self.offer.shown(),
        }


def _sentence_json(said: StreamSentence) -> str:
    words = [
        [word.text, _ms(word.start_s), _ms(word.end_s), word.confidence] for word in said.words
    ]
    sentence = {
        "start": _ms(said.start_s),
        "end": _ms(said.end_s),
        "text": said.text.strip(),
        "words": words,
    }
    return json.dumps(sentence, ensure_ascii=False, separators=(",", ":"))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
