"""Which words the punctuation model sees together, and when its marks are final.

The model reads a text in windows. Before a new window stand the words since the
last certain sentence end, so that a sentence is always judged as a whole.

Source: `CTTransformer.inference` of FunASR 1.4.16, `models/ct_transformer/model.py`,
here in a form that takes the words as they come.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serve_app.core.ports import Punctuator

FULL_STOP = "。"
_SENTENCE_ENDS = frozenset({FULL_STOP, "？"})
_COMMA = "，"
# The model must have seen more than one word beyond a sentence end, and a
# sentence has more than two words: other ends wait for the next window.
_MIN_END_INDEX = 2


@dataclass(frozen=True, slots=True)
class PunctuationState:
    """All that earlier words leave behind.

    Attributes:
        carry: words since the last sentence end, which the model has seen.
        pending: words that do not fill a window yet.
    """

    carry: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()


class PunctuationSession:
    """Punctuates one text; a loop of `next_window` and `accept`.

    Every word that is pushed comes out once, in order. How the words were
    divided among the pushes changes nothing.

    Args:
        state: where an earlier session of the same text stopped.
        window: new words that the model sees at once.
        pop_limit: longer sentences are ended at their last comma.
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
        """What a later session needs to go on from here."""
        return PunctuationState(tuple(self._carry), tuple(self._pending))

    def push(self, words: Iterable[str]) -> None:
        """Takes the next words of the text."""
        self._pending.extend(words)

    def finish(self) -> None:
        """No more words follow."""
        self._finished = True

    @property
    def _is_last(self) -> bool:
        return self._finished and len(self._pending) <= self._window

    def next_window(self) -> list[str] | None:
        """Returns the words to label now, or None until there are more.

        A full window waits for the word after it, because the last window of a
        text is treated differently.
        """
        if len(self._pending) > self._window or (self._is_last and (self._carry or self._pending)):
            return self._carry + self._pending[: self._window]
        return None

    def accept(self, labels: Sequence[str]) -> list[tuple[str, str]]:
        """Takes the marks of the words of `next_window`.

        Returns:
            The words that are final now, each with the mark after it.

        Raises:
            ValueError: there was no window, or it has another number of words.
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
        """Returns how many words are certain; turns the comma of too long a sentence."""
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
    """Punctuates whole texts side by side, one window of each in a batch.

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
    """Labels all windows that the sessions have, one window of each in a batch.

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
