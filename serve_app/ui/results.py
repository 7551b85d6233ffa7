"""The transcript as the page shows it, and its downloads."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Literal, TypeAlias

from serve_app.client import StreamEvent, StreamSentence
from serve_app.core.records import Token
from serve_app.core.words import needs_space, split_words
from serve_app.transcript.subtitles import to_srt, to_vtt
from serve_app.transcript.transcript import MarkedToken, Sentence
from serve_app.ui.client import Problem

State: TypeAlias = Literal["idle", "sent", "running", "done", "failed"]
Json: TypeAlias = dict[str, object]


@dataclass(slots=True)
class ShownResult:
    """The transcript so far.

    Attributes:
        run: names the recording for the page.
        model: that was asked for.
        sentences: heard, in order.
        duration_s: of the recording, once known.
        failed_ranges_ms: spans without text.
        demo_models: built-in demo models that are served; told with no recording.
    """

    run: str
    model: str = ""
    state: State = "sent"
    sentences: list[StreamSentence] = field(default_factory=list)
    duration_s: int | None = None
    failed_ranges_ms: tuple[tuple[int, int], ...] = ()
    problem: Problem | None = None
    detail: str = ""
    retry_after_s: int | None = None
    demo_models: tuple[str, ...] = ()

    def add(self, event: StreamEvent) -> None:
        if isinstance(event, StreamSentence):
            self.state = "running"
            self.sentences.append(replace(event, text=event.text.strip()))
        else:
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
            "sentences": [
                [_ms(said.start_s), _ms(said.end_s), said.text] for said in self.sentences
            ],
            "duration_s": self.duration_s,
            "failed_ranges": [list(span) for span in self.failed_ranges_ms],
            "problem": self.problem,
            "detail": self.detail,
            "retry_after_s": self.retry_after_s,
            "demo_models": list(self.demo_models),
            "downloads": self._downloads() if self.state == "done" else {},
        }

    def _downloads(self) -> dict[str, str]:
        sentences = [_sentence(said) for said in self.sentences if said.text.strip()]
        return {
            "srt": to_srt(sentences),
            "vtt": to_vtt(sentences),
            "txt": "\n".join(said.text for said in self.sentences) + "\n",
            "json": json.dumps(self._document(), ensure_ascii=False, indent=1) + "\n",
        }

    def _document(self) -> Json:
        text = ""
        for said in self.sentences:
            text += f" {said.text}" if needs_space(text, said.text) else said.text
        return {
            "model": self.model,
            "duration": self.duration_s,
            "text": text,
            "segments": [
                {
                    "id": number,
                    "start": said.start_s,
                    "end": said.end_s,
                    "text": said.text,
                }
                for number, said in enumerate(self.sentences)
            ],
            "failed_ranges": [
                {"start": start_ms / 1000, "end": end_ms / 1000}
                for start_ms, end_ms in self.failed_ranges_ms
            ],
        }


def _sentence(said: StreamSentence) -> Sentence:
    """Returns a sentence as subtitles want it: its words, which came without times of their own.

    They share the sentence's time by the number of their letters.
    """
    words = split_words(said.text)
    edges = [0, *accumulate(len(word) for word, _ in words)]
    start_ms, end_ms = _ms(said.start_s), _ms(said.end_s)
    times_ms = [start_ms + round((end_ms - start_ms) * edge / edges[-1]) for edge in edges]
    return Sentence(
        tuple(
            MarkedToken(Token(word, word_start_ms, word_end_ms, 1.0), mark)
            for (word, mark), (word_start_ms, word_end_ms) in zip(
                words, pairwise(times_ms), strict=True
            )
        )
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
