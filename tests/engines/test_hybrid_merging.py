"""Two languages in one chunk: neither is lost, and nothing is said twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from serve_app.core.records import ChunkFailure, Pcm, Recognition, RecognitionOptions, Token
from serve_app.engines.hybrid import (
    HybridOptions,
    HybridRecognizer,
    fill_gaps,
    find_gaps,
    merge_words,
)
from serve_app.engines.whisper.engine import Draft, DraftQuality
from tests.engines.paraformer.test_speech_edges import voiced

GOOD, DOUBTFUL = DraftQuality(-0.1, 1.0), DraftQuality(-2.0, 1.0)
SOUND = voiced((200, 2200), (2600, 4600), duration_ms=5000)


def words(text: str, start_ms: int, confidence: float = 0.9, word_ms: int = 400) -> list[Token]:
    """Latin words by their spaces; Chinese characters one by one."""
    parts = text.split() if text.isascii() else list(text)
    return [
        Token(part, start_ms + at * word_ms, start_ms + (at + 1) * word_ms, confidence)
        for at, part in enumerate(parts)
    ]


def said(tokens: Sequence[Token]) -> list[str]:
    return [token.text for token in tokens]


ENGLISH, CHINESE = words("let us get started now", 200), words("我们现在开始", 2600, word_ms=330)


def test_english_missing_from_the_refined_words_is_kept() -> None:
    draft = [*ENGLISH, *words("我们先在开始", 2600, 0.4, 330)]
    assert said(merge_words(draft, CHINESE)) == said(ENGLISH) + said(CHINESE)


def test_english_refined_to_chinese_is_kept_if_its_confidence_is_higher() -> None:
    garbled = words("来此哥特", 200, 0.3, 450)
    assert said(merge_words(ENGLISH, [*garbled, *CHINESE])) == said(ENGLISH) + said(CHINESE)
    certain = words("来此哥特", 200, 0.95, 450)
    assert said(merge_words(ENGLISH, [*certain, *CHINESE])) == said(certain) + said(CHINESE)


def test_english_in_both_results_comes_from_the_refiner() -> None:
    assert said(merge_words(ENGLISH, words("let us begin right now", 210))) == [
        "let", "us", "begin", "right", "now",
    ]  # fmt: skip


def test_english_with_low_confidence_is_dropped() -> None:
    assert said(merge_words(words("thanks for watching", 200, 0.3), CHINESE)) == said(CHINESE)


def test_chinese_and_numbers_of_the_draft_are_replaced() -> None:
    assert said(merge_words(words("我们", 200), [])) == []
    assert said(merge_words([Token("39.7", 200, 900, 0.9)], words("三十九点七", 200))) == list(
        "三十九点七"
    )


def test_merged_words_are_in_order_without_overlap() -> None:
    draft = [Token("hello", 100, 1000, 0.9)]
    result = merge_words(draft, [Token("好", 0, 160, 0.5), Token("吗", 990, 1400, 0.5)])
    edges = [edge for word in result for edge in (word.start_ms, word.end_ms)]
    assert edges == sorted(edges)
    assert said(result) == ["好", "hello", "吗"]


def test_sound_without_words_is_found() -> None:
    (gap,) = find_gaps(SOUND, ENGLISH, 1000)
    assert gap == pytest.approx((2600, 4600), abs=15)
    assert find_gaps(SOUND, [*ENGLISH, *CHINESE], 1000) == []
    (start_ms, end_ms), *_ = find_gaps(SOUND, ENGLISH[:2], 1000)
    assert (start_ms, end_ms) == pytest.approx((1000, 2200), abs=15)


def test_gap_is_filled_with_confident_words_inside_it() -> None:
    refined = [*words("来此", 200), *CHINESE, *words("呃", 4580, 0.2, 10)]
    assert said(fill_gaps(ENGLISH, refined, [(2600, 4600)])) == said(ENGLISH) + said(CHINESE)


@dataclass
class Scripted:
    """Says the same of every chunk, as drafter and as refiner."""

    tokens: Sequence[Token]
    quality: DraftQuality = GOOD
    language: str = "en"
    num_asked: int = 0
    max_in_flight: int = 1
    is_reentrant: bool = True
    recognition_options: list[RecognitionOptions] = field(default_factory=list)

    def draft(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Draft | ChunkFailure]:
        heard = Recognition(tuple(self.tokens), language=self.language)
        return [Draft(heard, self.quality)] * len(batch)

    def transcribe(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Recognition | ChunkFailure]:
        self.num_asked += len(batch)
        return [Recognition(tuple(self.tokens))] * len(batch)

    def language_of(self, recognition_options: RecognitionOptions) -> str | None:
        return self.language

    def cost(self, num_samples: int) -> int:
        return 1


def heard(drafter: Scripted, refiner: Scripted, options: HybridOptions) -> Recognition:
    (result,) = HybridRecognizer(drafter, refiner, ("rough", "fine"), options).transcribe([SOUND])
    assert isinstance(result, Recognition)
    return result


def test_chunk_with_two_languages_keeps_both_when_it_is_refined() -> None:
    drafter = Scripted([*ENGLISH, *words("我们先在", 2600, 0.4)], DOUBTFUL, "zh")
    result = heard(drafter, Scripted(CHINESE), HybridOptions())
    assert said(result.tokens) == said(ENGLISH) + said(CHINESE)
    assert result.model == "fine"
    assert [word.model for word in result.tokens] == ["rough"] * 5 + [None] * 6


def test_good_draft_that_skipped_one_language_is_completed() -> None:
    refiner = Scripted([*words("来此", 200), *CHINESE])
    result = heard(Scripted(ENGLISH), refiner, HybridOptions())
    assert said(result.tokens) == said(ENGLISH) + said(CHINESE)
    assert result.model == "rough"
    assert [word.model for word in result.tokens] == [None] * 5 + ["fine"] * 6


@pytest.mark.parametrize(
    ("drafter", "options"),
    [
        (Scripted([*ENGLISH, *CHINESE]), HybridOptions()),
        (Scripted(ENGLISH), HybridOptions(min_gap_s=None)),
        (Scripted(ENGLISH, language="de"), HybridOptions()),
    ],
    ids=["nothing is missing", "never", "another language"],
)
def test_good_draft_without_a_gap_is_kept(drafter: Scripted, options: HybridOptions) -> None:
    refiner = Scripted(CHINESE)
    assert heard(drafter, refiner, options).tokens == tuple(drafter.tokens)
    assert refiner.num_asked == 0
