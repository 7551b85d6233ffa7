"""Divides a text into windows for the punctuation model and decides when marks are final.

The model reads a text in windows. Each new window is preceded by the words since the last final
end of a sentence, so that the model always sees the whole sentence.

Source: `CTTransformer.inference` of FunASR 1.4.16, `models/ct_transformer/model.py`, adapted to
words that arrive over time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serve_app.core.ports import Punctuator

FULL_STOP = "。"
_SENTENCE_ENDS = frozenset({FULL_STOP, "？"})
_COMMA = "，"
# An end is final if the model has seen more than one word beyond it and the sentence has more
# than two words; otherwise the next window decides.
_MIN_END_INDEX = 2


@dataclass(frozen=True, slots=True)
class PunctuationState:
    """The words that are not final yet.

    Attributes:
        carry: words since the last sentence end, which the model has seen.
        pending: words that do not fill a window yet.
    """

    carry: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()


class PunctuationSession:
    """Punctuates one text; alternate `next_window` and `accept`.

    Every pushed word is returned once, in order. The result does not depend on how the words
    were divided among the pushes.

    Args:
        state: of an earlier session of the same text.
        window: number of new words in a window.
        pop_limit: longer sentences end at their last comma.
    """

    def __init__(
        self, state: PunctuationState | None = None, window: int = 20, pop_limit: int = 200
    ) -> None:
        state = PunctuationState() if state is None else state
        self._window = window
        self._pop_limit = pop_limit
        self._carry = list(state.carry)
        self._pending = list(state.pending)
        self._finished = False

    @property
    def state(self) -> PunctuationState:
        """The state from which a later session can continue."""
        return PunctuationState(tuple(self._carry), tuple(self._pending))

    def push(self, words: Iterable[str]) -> None:
        """Takes the next words of the text."""
        self._pending.extend(words)

    def finish(self) -> None:
        """Ends the text: no more words follow."""
        self._finished = True

    @property
    def _is_last(self) -> bool:
        return self._finished and len(self._pending) <= self._window

    def next_window(self) -> list[str] | None:
        """Returns the words to label now, or None if more words are needed.

        A full window is returned only once another word follows, because the last window of a
        text is handled differently.
        """
        if len(self._pending) > self._window or (self._is_last and (self._carry or self._pending)):
            return self._carry + self._pending[: self._window]
        return None

    def accept(self, labels: Sequence[str]) -> list[tuple[str, str]]:
        """Takes the marks of the words in `next_window`.

        Returns:
            The words that became final, each with the mark after it.

        Raises:
            ValueError: there is no window, or it has another number of words.
        """
        words = self.next_window()
        if words is None or len(words) != len(labels):
            count = 0 if words is None else len(words)
            raise ValueError(f"{len(labels)} labels for a window of {count} words")
        marks = list(labels)
        if self._is_last:
            num_final = len(words)
            # A text ends with a sentence.
            if marks[-1] not in _SENTENCE_ENDS:
                marks[-1] = FULL_STOP
        else:
            num_final = self._end_sentence(marks)
        self._carry = words[num_final:]
        del self._pending[: self._window]
        return list(zip(words[:num_final], marks, strict=False))

    def _end_sentence(self, marks: list[str]) -> int:
        """Returns how many words are final; ends too long a sentence at its last comma."""
        last_comma = -1
        for i in range(len(marks) - 2, _MIN_END_INDEX - 1, -1):
            if marks[i] in _SENTENCE_ENDS:
                return i + 1
            if last_comma < 0 and marks[i] == _COMMA:
                last_comma = i
        if len(marks) > self._pop_limit and last_comma >= 0:
            marks[last_comma] = FULL_STOP
            return last_comma + 1
        return 0


def punctuate_all(
    labeler: Punctuator, texts: Sequence[Sequence[str]]
) -> list[list[tuple[str, str]]]:
    """Punctuates whole texts together, with one window of each per batch.

    Returns:
        For each text its words, each with the mark after it.
    """
    sessions = [PunctuationSession() for _ in texts]
    for session, words in zip(sessions, texts, strict=True):
        session.push(words)
        session.finish()
    return advance_all(labeler, sessions)


def advance_all(
    labeler: Punctuator, sessions: Sequence[PunctuationSession]
) -> list[list[tuple[str, str]]]:
    """Labels all windows of the sessions, with one window of each per batch.

    Returns:
        For each session the words that became final, each with the mark after it.
    """
    results: list[list[tuple[str, str]]] = [[] for _ in sessions]
    while True:
        open_windows = [
            (i, window)
            for i, session in enumerate(sessions)
            if (window := session.next_window()) is not None
        ]
        if not open_windows:
            return results
        labels = labeler.label([window for _, window in open_windows])
        for (i, _), marks in zip(open_windows, labels, strict=True):
            results[i] += sessions[i].accept(marks)
