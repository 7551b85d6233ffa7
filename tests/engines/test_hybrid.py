from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from serve_app.core.records import (
    NO_OPTIONS,
    ChunkFailure,
    Pcm,
    Recognition,
    RecognitionOptions,
    Token,
)
from serve_app.engines.hybrid import (
    HybridOptions,
    HybridRecognizer,
    Reason,
    RefinementBudget,
    has_keyword,
    is_refinable,
    reason_to_refine,
)
from serve_app.engines.whisper.engine import Draft, DraftQuality

GOOD = DraftQuality(-0.1, 1.0)
KEYWORD = RecognitionOptions(keywords=("停滞",))


DOUBTFUL = DraftQuality(-2.0, 1.0)


def draft(
    text: str = "好",
    quality: DraftQuality | None = GOOD,
    confidence: float = 0.9,
    language: str | None = "zh",
) -> Draft:
    tokens = tuple(Token(word, 0, 1, confidence) for word in text)
    return Draft(Recognition(tokens, language=language), quality)


def chunk(number: int, duration_s: float = 1.0) -> Pcm:
    return np.full(round(duration_s * 16_000), number + 1, np.int16)


def text_of(result: Recognition | ChunkFailure) -> str:
    assert isinstance(result, Recognition)
    return "".join(token.text for token in result.tokens)


@dataclass
class ScriptedDrafter:
    """Drafts chunk n, which is made of the sample n + 1, as it is told to."""

    drafts: Sequence[Draft | ChunkFailure]
    asked: list[RecognitionOptions] = field(default_factory=list)
    is_reentrant: bool = True
    default_language: str | None = "zh"

    def draft(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Draft | ChunkFailure]:
        self.asked += recognition_options
        return [self.drafts[int(pcm[0]) - 1] if pcm.any() else draft("", None) for pcm in batch]

    def language_of(self, recognition_options: RecognitionOptions) -> str | None:
        return recognition_options.language or self.default_language

    def cost(self, num_samples: int) -> int:
        return 500


@dataclass
class NotingRefiner:
    """Hears the same in everything, and remembers what it was asked."""

    fails: bool = False
    asked: list[tuple[int, RecognitionOptions]] = field(default_factory=list)
    max_in_flight: int = 1
    is_reentrant: bool = True

    def transcribe(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Recognition | ChunkFailure]:
        self.asked += [
            (int(pcm[0]) - 1, options)
            for pcm, options in zip(batch, recognition_options, strict=True)
        ]
        if self.fails:
            return [ChunkFailure("engine_error", "broken")] * len(batch)
        return [Recognition((Token("细", 0, 1, 0.9),))] * len(batch)

    def cost(self, num_samples: int) -> int:
        return num_samples


def hybrid(
    drafts: Sequence[Draft | ChunkFailure],
    refiner: NotingRefiner,
    options: HybridOptions | None = None,
) -> HybridRecognizer:
    return HybridRecognizer(ScriptedDrafter(drafts), refiner, ("rough", "fine"), options)


@pytest.mark.parametrize(
    ("drafted", "recognition_options", "options", "reason"),
    [
        (draft(), NO_OPTIONS, HybridOptions(), None),
        (ChunkFailure("draft_failed", ""), NO_OPTIONS, HybridOptions(), "failed"),
        (draft("", None), NO_OPTIONS, HybridOptions(), "empty"),
        (draft("", None), NO_OPTIONS, HybridOptions(refine_empty=False), None),
        (draft("几乎停滞的"), KEYWORD, HybridOptions(), "keyword"),
        (draft("几乎停止的"), KEYWORD, HybridOptions(), None),
        (draft(quality=DraftQuality(-0.51, 1.0)), NO_OPTIONS, HybridOptions(), "log_probability"),
        (draft(quality=DraftQuality(-0.1, 2.5)), NO_OPTIONS, HybridOptions(), "compression"),
        (draft(confidence=0.3), NO_OPTIONS, HybridOptions(), None),
        (draft(confidence=0.3), NO_OPTIONS, HybridOptions(min_word_confidence=0.4), "word"),
    ],
)
def test_reason_to_refine(
    drafted: Draft | ChunkFailure,
    recognition_options: RecognitionOptions,
    options: HybridOptions,
    reason: Reason | None,
) -> None:
    assert reason_to_refine(drafted, recognition_options, options) == reason


@pytest.mark.parametrize(
    ("language", "options", "may_be"),
    [
        ("zh", HybridOptions(), True),
        ("en", HybridOptions(), True),
        ("ja", HybridOptions(), False),
        ("yue", HybridOptions(), False),
        ("yue", HybridOptions(languages=("zh", "yue")), True),
        (None, HybridOptions(), False),
        (None, HybridOptions(refine_unknown=True), True),
    ],
)
def test_chunk_is_refinable_in_the_languages_of_the_refiner(
    language: str | None, options: HybridOptions, may_be: bool
) -> None:
    assert is_refinable(language, options) is may_be


@pytest.mark.parametrize(
    "drafted",
    [
        draft("停滞", language="ja"),
        draft("二", DOUBTFUL, language="ja"),
        draft("", None, language="ja"),
    ],
)
def test_foreign_speech_keeps_its_draft_for_any_reason(drafted: Draft) -> None:
    refiner = NotingRefiner()
    (result,) = hybrid([drafted], refiner).transcribe([chunk(0)], [KEYWORD])
    assert not refiner.asked
    assert result == Recognition(drafted.recognition.tokens, "rough", "ja")


@pytest.mark.parametrize(
    ("named", "default", "refine_unknown", "refined"),
    [
        ("ja", "zh", True, False),
        ("zh", "ja", False, True),
        (None, "zh", False, True),
        (None, "ja", False, False),
        (None, None, False, False),
        (None, None, True, True),
    ],
)
def test_failed_draft_is_refined_in_the_requested_language(
    named: str | None, default: str | None, refine_unknown: bool, refined: bool
) -> None:
    drafter = ScriptedDrafter([ChunkFailure("draft_failed", "")], default_language=default)
    options = HybridOptions(refine_unknown=refine_unknown)
    recognizer = HybridRecognizer(drafter, NotingRefiner(), ("rough", "fine"), options)
    (result,) = recognizer.transcribe([chunk(0)], [RecognitionOptions(language=named)])
    assert isinstance(result, Recognition) is refined
    if isinstance(result, Recognition):
        assert result.language == (named or default)


def test_refined_chunk_has_the_language_of_its_draft() -> None:
    recognizer = hybrid([draft("二", DOUBTFUL, language="en")], NotingRefiner())
    (result,) = recognizer.transcribe([chunk(0)])
    assert isinstance(result, Recognition)
    assert (result.model, result.language) == ("fine", "en")


def test_foreign_speech_does_not_use_the_refinement_budget() -> None:
    options = HybridOptions(max_refined_share=0.5, share_period_s=2.0)
    refiner = NotingRefiner()
    drafts = [draft("一", DOUBTFUL, language="ja"), draft("二", DOUBTFUL)]
    recognizer = hybrid(drafts, refiner, options)
    recognizer.transcribe([chunk(0), chunk(1)])
    assert [number for number, _ in refiner.asked] == [1]


@pytest.mark.parametrize(
    ("words", "keyword", "found"),
    [
        (("几", "乎", "停", "滞"), "停滞", True),
        (("open", "AI", "发", "布"), "OpenAI", True),
        (("Hello", "World"), "hello world", True),
        (("停", "止"), "停滞", False),
        (("停",), " ", False),
    ],
)
def test_keyword_is_found_however_it_is_spaced(
    words: tuple[str, ...], keyword: str, found: bool
) -> None:
    assert has_keyword(words, (keyword,)) is found


def test_only_doubtful_chunks_are_refined_and_each_result_names_its_model() -> None:
    refiner = NotingRefiner()
    recognizer = hybrid([draft("一"), draft("二", DOUBTFUL), draft("三")], refiner)
    results = recognizer.transcribe([chunk(0), chunk(1), chunk(2)])
    assert [text_of(result) for result in results] == ["一", "细", "三"]
    assert [result.model for result in results if isinstance(result, Recognition)] == [
        "rough",
        "fine",
        "rough",
    ]
    assert [number for number, _ in refiner.asked] == [1]


def test_refiner_gets_the_options_of_the_chunk() -> None:
    refiner = NotingRefiner()
    recognizer = hybrid([draft("停滞"), draft("停滞")], refiner)
    recognizer.transcribe([chunk(0), chunk(1)], [NO_OPTIONS, KEYWORD])
    assert refiner.asked == [(1, KEYWORD)]


def test_drafter_gets_the_options_of_each_chunk() -> None:
    drafter = ScriptedDrafter([draft("一"), draft("二")])
    recognizer = HybridRecognizer(drafter, NotingRefiner(), ("rough", "fine"))
    recognition_options = [RecognitionOptions(language="en"), RecognitionOptions(language="zh")]
    recognizer.transcribe([chunk(0), chunk(1)], recognition_options)
    assert drafter.asked == recognition_options


def test_draft_stays_if_refining_fails() -> None:
    recognizer = hybrid([draft("一", DOUBTFUL)], NotingRefiner(fails=True))
    (result,) = recognizer.transcribe([chunk(0)])
    assert text_of(result) == "一"
    assert isinstance(result, Recognition)
    assert result.model == "rough"


def test_failed_draft_is_refined() -> None:
    recognizer = hybrid([ChunkFailure("draft_failed", "")], NotingRefiner())
    assert text_of(recognizer.transcribe([chunk(0)])[0]) == "细"


def test_chunk_that_both_fail_on_fails() -> None:
    recognizer = hybrid([ChunkFailure("draft_failed", "")], NotingRefiner(fails=True))
    (result,) = recognizer.transcribe([chunk(0)])
    assert isinstance(result, ChunkFailure)


def test_digital_silence_is_not_refined() -> None:
    refiner = NotingRefiner()
    (result,) = hybrid([], refiner).transcribe([np.zeros(16_000, np.int16)])
    assert isinstance(result, Recognition)
    assert result.tokens == ()
    assert not refiner.asked


def test_result_does_not_depend_on_batch_mates() -> None:
    drafts = [draft("一"), draft("二", DOUBTFUL), draft("三")]
    together = hybrid(drafts, NotingRefiner()).transcribe([chunk(0), chunk(1), chunk(2)])
    alone = [hybrid(drafts, NotingRefiner()).transcribe([chunk(number)])[0] for number in range(3)]
    assert together == alone


def test_budget_limits_the_refined_share_of_long_audio() -> None:
    budget = RefinementBudget(0.25, period_s=60.0)
    refined_s = sum(10.0 for _ in range(1000) if budget.admit(10.0, True))
    assert refined_s <= 0.25 * 10_000 + 0.25 * 60


def test_budget_admits_doubtful_chunks_while_any_is_left() -> None:
    budget = RefinementBudget(0.5, period_s=60.0)
    assert budget.admit(10.0, True)
    assert not budget.admit(10.0, False)


def test_keywords_exceed_the_budget_and_use_that_of_later_chunks() -> None:
    options = HybridOptions(max_refined_share=0.1, share_period_s=20.0)
    drafts = [draft("停滞"), draft("二", DOUBTFUL)]
    refiner = NotingRefiner()
    recognizer = hybrid(drafts, refiner, options)
    recognizer.transcribe([chunk(0, 10.0), chunk(1, 2.0)], [KEYWORD, KEYWORD])
    assert [number for number, _ in refiner.asked] == [0]


@pytest.mark.parametrize("drafter_is", [True, False])
@pytest.mark.parametrize("refiner_is", [True, False])
def test_hybrid_is_reentrant_if_both_models_are(drafter_is: bool, refiner_is: bool) -> None:
    drafter = ScriptedDrafter([], is_reentrant=drafter_is)
    recognizer = HybridRecognizer(
        drafter, NotingRefiner(is_reentrant=refiner_is), ("rough", "fine")
    )
    assert recognizer.is_reentrant == (drafter_is and refiner_is)
