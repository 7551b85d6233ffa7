from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.transcript.punctuation import PunctuationSession, PunctuationState, punctuate_all

Pairs = list[tuple[str, str]]


class HashLabeler:
    """Labels that depend on the whole window, as those of a model do."""

    def __init__(self, seed: int, marks: Sequence[str]) -> None:
        self._seed = seed
        self._marks = marks

    max_in_flight = 1
    is_reentrant = False

    def label(self, batch: Sequence[Sequence[str]]) -> list[list[str]]:
        return [self._window(words) for words in batch]

    def _window(self, words: Sequence[str]) -> list[str]:
        key = f"{self._seed} {' '.join(words)}".encode()
        digest = hashlib.shake_128(key).digest(len(words))
        return [self._marks[byte % len(self._marks)] for byte in digest]


def windowed(labeler: HashLabeler, words: list[str], window: int, pop_limit: int) -> Pairs:
    """FunASR's loop over a whole text (`CTTransformer.inference`), on words and marks."""
    pieces = [words[i : i + window] for i in range(0, len(words), window)]
    carry: list[str] = []
    pairs: Pairs = []
    for number, piece in enumerate(pieces):
        seen = carry + piece
        marks = labeler.label([seen])[0]
        end = len(seen)
        if number < len(pieces) - 1:
            ends = [i for i in range(2, len(seen) - 1) if marks[i] in ("。", "？")]
            commas = [i for i in range(2, len(seen) - 1) if marks[i] == "，"]
            end = ends[-1] + 1 if ends else 0
            if not ends and len(seen) > pop_limit and commas:
                marks[commas[-1]] = "。"
                end = commas[-1] + 1
        elif marks[-1] not in ("。", "？"):
            marks[-1] = "。"
        pairs += zip(seen[:end], marks, strict=False)
        carry = seen[end:]
    return pairs


def drain(session: PunctuationSession, labeler: HashLabeler) -> Pairs:
    pairs: Pairs = []
    while (window := session.next_window()) is not None:
        pairs += session.accept(labeler.label([window])[0])
    return pairs


marks_strategy = st.sampled_from(
    [("", "", "，", "。"), ("",), ("", "，"), ("", "", "", "，", "、", "。", "？"), ("", "、")]
)
labelers = st.builds(HashLabeler, st.integers(0, 1000), marks_strategy)


@given(
    labeler=labelers,
    num_words=st.integers(0, 120),
    cuts=st.lists(st.integers(0, 120), max_size=12),
    window=st.integers(2, 20),
    pop_limit=st.integers(2, 60),
    resume=st.booleans(),
)
def test_any_split_of_the_words_gives_the_pairs_of_the_whole_text(
    labeler: HashLabeler,
    num_words: int,
    cuts: list[int],
    window: int,
    pop_limit: int,
    resume: bool,
) -> None:
    words = [f"w{i}" for i in range(num_words)]
    session = PunctuationSession(window=window, pop_limit=pop_limit)
    pairs: Pairs = []
    sequence_layout = sorted({min(cut, num_words) for cut in cuts} | {0, num_words})
    for first, last in pairwise(sequence_layout):
        session.push(words[first:last])
        pairs += drain(session, labeler)
        if resume:
            session = PunctuationSession(session.state, window=window, pop_limit=pop_limit)
    session.finish()
    pairs += drain(session, labeler)
    assert [word for word, _ in pairs] == words
    assert pairs == windowed(labeler, words, window, pop_limit)
    assert session.state == PunctuationState()


@given(labeler=labelers, lengths=st.lists(st.integers(0, 90), max_size=6))
def test_texts_in_one_batch_give_the_same_result_as_each_alone(
    labeler: HashLabeler, lengths: list[int]
) -> None:
    texts = [[f"t{t}w{i}" for i in range(length)] for t, length in enumerate(lengths)]
    together = punctuate_all(labeler, texts)
    assert together == [windowed(labeler, text, 20, 200) for text in texts]


def test_a_full_window_waits_for_the_word_after_it() -> None:
    session = PunctuationSession()
    session.push(["字"] * 20)
    assert session.next_window() is None
    session.push(["字"])
    assert session.next_window() == ["字"] * 20


def test_a_text_without_words_has_no_window() -> None:
    session = PunctuationSession()
    session.finish()
    assert session.next_window() is None
    assert punctuate_all(HashLabeler(0, ("",)), [[], []]) == [[], []]


@pytest.mark.parametrize(
    ("mark", "at_the_end"), [("", "。"), ("，", "。"), ("、", "。"), ("？", "？"), ("。", "。")]
)
def test_a_text_ends_with_a_sentence(mark: str, at_the_end: str) -> None:
    session = PunctuationSession()
    session.push(["你", "好"])
    session.finish()
    assert session.accept(["", mark]) == [("你", ""), ("好", at_the_end)]


def test_the_words_after_the_last_sentence_end_are_seen_again() -> None:
    session = PunctuationSession(window=5)
    session.push("一二三四五六")
    assert session.accept(["", "", "。", "", ""]) == [("一", ""), ("二", ""), ("三", "。")]
    assert session.state == PunctuationState(carry=("四", "五"), pending=("六",))


def test_a_sentence_over_the_limit_ends_at_its_last_comma() -> None:
    session = PunctuationSession(window=5, pop_limit=4)
    session.push("一二三四五六")
    assert session.accept(["", "", "，", "，", "，"])[-1] == ("四", "。")


def test_carried_words_are_returned_without_further_words() -> None:
    session = PunctuationSession(PunctuationState(carry=("一", "二")))
    session.finish()
    assert session.next_window() == ["一", "二"]


def test_labels_of_another_length_are_refused() -> None:
    session = PunctuationSession()
    session.push(["一"])
    session.finish()
    with pytest.raises(ValueError, match="window of 1 word"):
        session.accept(["", ""])


def test_labels_without_a_window_are_refused() -> None:
    with pytest.raises(ValueError, match="window of 0 words"):
        PunctuationSession().accept([])
