"""Decides which words of an open segment can be told, and how its final text continues them.

A segment's text is decoded again and again while it is spoken. Words are told once two decodes
in a row agree on them and on their marks (local agreement), and are never taken back: whatever
later decodes say, the text continues after what was told.

Source: Liu, Spanakis and Niehues, "Low-latency sequence-to-sequence speech recognition and
translation by partial hypothesis selection", Interspeech 2020, arXiv:2005.11185.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from serve_app.core.words import needs_space
from serve_app.transcript.sentences import SENTENCE_ENDS
from serve_app.transcript.transcript import MarkedToken, Sentence


class StableText:
    """The text of one segment while it is decoded."""

    def __init__(self) -> None:
        self._told: list[MarkedToken] = []
        self._text = ""
        self._expected: list[MarkedToken] = []

    @property
    def text(self) -> str:
        """All that was told."""
        return self._text

    @property
    def end_ms(self) -> int:
        """End of the last word that was told; 0 without any."""
        return self._told[-1].token.end_ms if self._told else 0

    @property
    def tokens(self) -> tuple[MarkedToken, ...]:
        """The words that were told."""
        return tuple(self._told)

    def advance(self, decoded: Sequence[MarkedToken], until_ms: int) -> str:
        """Takes the next decode of the open segment; returns what can be told now.

        Args:
            decoded: the words so far, with their marks.
            until_ms: words that end later are not told yet.
        """
        rest = list(decoded[continuation(self._told, decoded) :])
        num_agreed = 0
        # The last word and its mark depend on what follows.
        for word, expected in zip(rest[:-1], self._expected, strict=False):
            if (word.token.text, word.mark) != (expected.token.text, expected.mark):
                break
            if word.token.end_ms > until_ms:
                break
            num_agreed += 1
        # A mark is less certain than its word until the next word is there.
        while num_agreed and rest[num_agreed - 1].mark:
            num_agreed -= 1
        self._expected = rest[num_agreed:]
        return self._tell(rest[:num_agreed])

    def complete(self, decoded: Sequence[MarkedToken], end_ms: int) -> str:
        """Takes the decode of the whole segment; returns the rest of its text.

        Args:
            decoded: all its words, with their marks.
            end_ms: of the segment; no word ends later.
        """
        at = continuation(self._told, decoded)
        said = [word.token.text for word in self._told]
        mark = ""
        if said and said == [word.token.text for word in decoded[:at]]:
            # The same words: these times and confidences are of the whole segment.
            if not self._told[-1].mark:
                mark = decoded[at - 1].mark
            self._told = [
                replace(final, mark=told.mark)
                for told, final in zip(self._told, decoded, strict=False)
            ]
            self._told[-1] = replace(self._told[-1], mark=self._told[-1].mark or mark)
        self._text += mark
        rest = self._tell(decoded[at:])
        self._told = _in_order(self._told, end_ms)
        return mark + rest

    def _tell(self, words: Sequence[MarkedToken]) -> str:
        before = len(self._text)
        for word in words:
            separator = " " if needs_space(self._text, word.token.text) else ""
            self._text += f"{separator}{word.token.text}{word.mark}"
            self._told.append(word)
        return self._text[before:]


def _in_order(words: Sequence[MarkedToken], end_ms: int) -> list[MarkedToken]:
    """Returns words of several decodes so that none begins before the one before it ends."""
    moved: list[MarkedToken] = []
    from_ms = 0
    for word in words:
        start_ms = min(max(word.token.start_ms, from_ms), end_ms)
        from_ms = min(max(word.token.end_ms, start_ms), end_ms)
        moved.append(replace(word, token=replace(word.token, start_ms=start_ms, end_ms=from_ms)))
    return moved


def continuation(told: Sequence[MarkedToken], decoded: Sequence[MarkedToken]) -> int:
    """Returns how many words of a decode are those that were told; the text goes on after them.

    It is the beginning of the decode with the least edit distance to what was told; of several,
    the one that ends at the same time, or nearest to it.
    """
    num_same = 0
    for one, other in zip(told, decoded, strict=False):
        if one.token.text != other.token.text:
            break
        num_same += 1
    if num_same == len(told):
        return num_same
    said = [word.token.text for word in told[num_same:]]
    heard = [word.token.text for word in decoded[num_same:]]
    distances = _distances_of_beginnings(said, heard)
    told_end_ms = told[-1].token.end_ms

    def badness(num_heard: int) -> tuple[int, int]:
        at = num_same + num_heard
        too_early_ms = decoded[at - 1].token.end_ms - told_end_ms if at else 0
        too_late_ms = told_end_ms - decoded[at].token.start_ms if at < len(decoded) else 0
        return distances[num_heard], max(too_early_ms, too_late_ms)

    return num_same + min(range(len(heard) + 1), key=badness)


def _distances_of_beginnings(said: Sequence[str], heard: Sequence[str]) -> list[int]:
    """Returns the edit distance of `said` to each beginning of `heard`, the empty one first."""
    row = list(range(len(heard) + 1))
    for deleted, word in enumerate(said, start=1):
        diagonal, row[0] = row[0], deleted
        for i, other in enumerate(heard, start=1):
            diagonal, row[i] = (
                row[i],
                min(diagonal + (word != other), row[i] + 1, row[i - 1] + 1),
            )
    return row


def sentences_of(words: Sequence[MarkedToken]) -> tuple[Sentence, ...]:
    """Divides words at the marks that end sentences."""
    sentences: list[Sentence] = []
    start = 0
    for end, word in enumerate(words, start=1):
        if end == len(words) or word.mark in SENTENCE_ENDS:
            sentences.append(Sentence(tuple(words[start:end])))
            start = end
    return tuple(sentences)
