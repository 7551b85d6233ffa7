"""Hybrid recognition: Whisper drafts every chunk, Paraformer refines the doubtful ones.

Paraformer recognizes Mandarin and some English. For other languages in a chunk it gives nothing,
or Mandarin, so such passages of a good draft are kept when the two results are merged.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Literal, Protocol

from serve_app.core.ports import Recognizer
from serve_app.core.records import (
    NO_OPTIONS,
    SAMPLE_RATE_HZ,
    ChunkFailure,
    Pcm,
    Recognition,
    RecognitionOptions,
    Token,
)
from serve_app.core.words import join_words
from serve_app.engines.paraformer.speech_edges import speech_runs
from serve_app.engines.paraformer.timestamps import Span
from serve_app.engines.whisper.engine import Draft

Reason = Literal["failed", "empty", "keyword", "log_probability", "compression", "word", "gap"]
"""Why a chunk is refined: its draft failed, has no words although the VAD found speech, contains
a keyword of the request, misses a threshold, or has a gap: sound without words."""

_ALWAYS: frozenset[Reason] = frozenset({"failed", "keyword"})


class Drafter(Protocol):
    """Drafts each chunk; a result does not depend on the rest of its batch."""

    @property
    def is_reentrant(self) -> bool:
        """See `ports.Recognizer`, for calls of `draft`."""
        ...

    def draft(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Draft | ChunkFailure]: ...

    def language_of(self, recognition_options: RecognitionOptions) -> str | None:
        """Returns the language of an item with these options; None if it is detected."""
        ...

    def cost(self, num_samples: int) -> int: ...


@dataclass(frozen=True, slots=True)
class HybridOptions:
    """When a draft is refined.

    Attributes:
        languages: languages of the refiner. A chunk in another one, requested or detected, always
            keeps its draft.
        refine_unknown: refine chunks whose language is neither requested nor detected, as when
            the draft failed.
        min_mean_log_probability: drafts below it are refined.
        max_compression_ratio: drafts above it, which repeat themselves, are refined.
        min_word_confidence: drafts with a word below it are refined; 0 for never.
        refine_empty: refine drafts without words.
        min_gap_s: sound without a word of the draft from which on the chunk is recognized again
            and only the gap is filled; None for never.
        max_refined_share: maximum share of recent audio that is refined because of doubts; None
            for no limit. With a limit, results depend on earlier chunks and are not repeatable.
        share_period_s: length of the recent audio.
    """

    languages: tuple[str, ...] = ("zh", "en")
    refine_unknown: bool = False
    min_mean_log_probability: float = -0.4
    max_compression_ratio: float = 2.4
    min_word_confidence: float = 0.0
    refine_empty: bool = True
    min_gap_s: float | None = 1.0
    max_refined_share: float | None = None
    share_period_s: float = 600.0


class HybridRecognizer:
    """Combines a drafter and a refiner; implements `ports.Recognizer`.

    Every chunk is drafted. If its draft is doubtful, failed or contains a keyword of the request,
    and the refiner supports its language, the refined words replace the draft's, except for
    passages in a non-Chinese script (see `merge_words`). In a good draft with gaps, only the gaps
    are filled. If the refiner fails, the draft is kept. Each result and each word names its
    model; each result has the language of its draft.

    Args:
        drafter: recognizes every chunk.
        refiner: recognizes selected chunks again, with the same options.
        names: of the drafter's and the refiner's model.
        options: when to refine.
    """

    max_in_flight = 1

    def __init__(
        self,
        drafter: Drafter,
        refiner: Recognizer,
        names: tuple[str, str],
        options: HybridOptions | None = None,
    ) -> None:
        self._drafter = drafter
        self._refiner = refiner
        self._draft_name, self._refined_name = names
        self._options = HybridOptions() if options is None else options
        share = self._options.max_refined_share
        self._budget = (
            None if share is None else RefinementBudget(share, self._options.share_period_s)
        )

    @property
    def is_reentrant(self) -> bool:
        """True if both of its models are."""
        return self._drafter.is_reentrant and self._refiner.is_reentrant

    def transcribe(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Recognition | ChunkFailure]:
        """Recognizes each item; see `ports.Recognizer`."""
        options = list(recognition_options) or [NO_OPTIONS] * len(batch)
        drafts = self._drafter.draft(batch, options)
        results = [self._drafted(draft) for draft in drafts]
        languages = [
            self._language(draft, each) for draft, each in zip(drafts, options, strict=True)
        ]
        reasons = [
            self._reason(pcm, draft, each, language)
            for pcm, draft, each, language in zip(batch, drafts, options, languages, strict=True)
        ]
        to_refine = [
            index for index, pcm in enumerate(batch) if self._is_refined(pcm, reasons[index])
        ]
        if to_refine:
            refined = self._refiner.transcribe(
                [batch[index] for index in to_refine], [options[index] for index in to_refine]
            )
            for index, result in zip(to_refine, refined, strict=True):
                if isinstance(result, Recognition):
                    words = self._combined(batch[index], drafts[index], result, reasons[index])
                    model = self._draft_name if reasons[index] == "gap" else self._refined_name
                    results[index] = Recognition(words, model, languages[index])
        return results

    def cost(self, num_samples: int) -> int:
        """Encoder frames of an item, as the drafter counts them."""
        return self._drafter.cost(num_samples)

    def _combined(
        self, pcm: Pcm, draft: Draft | ChunkFailure, refined: Recognition, reason: Reason | None
    ) -> tuple[Token, ...]:
        """Combines the words; those that are not from the result's model name their own."""
        if isinstance(draft, ChunkFailure) or not draft.recognition.tokens:
            return refined.tokens
        drafted = draft.recognition.tokens
        if reason == "gap":
            named = [replace(word, model=self._refined_name) for word in refined.tokens]
            return fill_gaps(drafted, named, self._gaps(pcm, draft))
        named = [replace(word, model=self._draft_name) for word in drafted]
        return merge_words(named, refined.tokens)

    def _gaps(self, pcm: Pcm, draft: Draft) -> list[Span]:
        if self._options.min_gap_s is None:
            return []
        return find_gaps(pcm, draft.recognition.tokens, round(self._options.min_gap_s * 1000))

    def _drafted(self, draft: Draft | ChunkFailure) -> Recognition | ChunkFailure:
        if isinstance(draft, ChunkFailure):
            return draft
        return replace(draft.recognition, model=self._draft_name)

    def _language(
        self, draft: Draft | ChunkFailure, recognition_options: RecognitionOptions
    ) -> str | None:
        if isinstance(draft, ChunkFailure):
            return self._drafter.language_of(recognition_options)
        return draft.recognition.language

    def _reason(
        self,
        pcm: Pcm,
        draft: Draft | ChunkFailure,
        recognition_options: RecognitionOptions,
        language: str | None,
    ) -> Reason | None:
        if not is_refinable(language, self._options):
            return None
        reason = reason_to_refine(draft, recognition_options, self._options)
        if reason is not None or isinstance(draft, ChunkFailure) or not draft.recognition.tokens:
            return reason
        return "gap" if self._gaps(pcm, draft) else None

    def _is_refined(self, pcm: Pcm, reason: Reason | None) -> bool:
        if not pcm.any():
            return False
        if self._budget is None:
            return reason is not None
        duration_s = len(pcm) / SAMPLE_RATE_HZ
        return self._budget.admit(duration_s, reason is not None, always=reason in _ALWAYS)


def is_refinable(language: str | None, options: HybridOptions) -> bool:
    """Whether chunks in this language (None: unknown) may be refined."""
    return options.refine_unknown if language is None else language in options.languages


def reason_to_refine(
    draft: Draft | ChunkFailure, recognition_options: RecognitionOptions, options: HybridOptions
) -> Reason | None:
    """Returns why the draft of a refinable chunk is refined; None for a good draft.

    Does not find the reason `gap`, which needs the sound.
    """
    if isinstance(draft, ChunkFailure):
        return "failed"
    words = draft.recognition.tokens
    if draft.quality is None or not words:
        return "empty" if options.refine_empty else None
    if has_keyword([word.text for word in words], recognition_options.keywords):
        return "keyword"
    if draft.quality.mean_log_probability < options.min_mean_log_probability:
        return "log_probability"
    if draft.quality.compression_ratio > options.max_compression_ratio:
        return "compression"
    if min(word.confidence for word in words) < options.min_word_confidence:
        return "word"
    return None


def has_keyword(words: Sequence[str], keywords: Sequence[str]) -> bool:
    """Whether a text contains one of the keywords, ignoring case and spaces."""
    text = _folded(join_words(words))
    return any(wanted in text for keyword in keywords if (wanted := _folded(keyword)))


def _folded(text: str) -> str:
    return "".join(text.casefold().split())


class RefinementBudget:
    """Limits refined audio to a share of recent audio; a token bucket, safe for threads.

    Each chunk adds its share of its duration, up to that of a whole period; a refined chunk takes
    its duration.

    Args:
        share: within [0, 1].
        period_s: length of the recent audio.
    """

    def __init__(self, share: float, period_s: float) -> None:
        self._share = share
        self._max_s = share * period_s
        self._left_s = self._max_s
        self._lock = threading.Lock()

    def admit(self, duration_s: float, wanted: bool, *, always: bool = False) -> bool:
        """Returns whether a chunk may be refined.

        Args:
            duration_s: of the chunk.
            wanted: whether there is a reason to.
            always: refine it even beyond the budget, which reduces that of later chunks.
        """
        with self._lock:
            self._left_s = min(self._left_s + self._share * duration_s, self._max_s)
            if not wanted or not (always or self._left_s >= duration_s):
                return False
            self._left_s = max(self._left_s - duration_s, -self._max_s)
            return True


# Words below this confidence are dropped where the models disagree.
_MIN_CONFIDENCE = 0.5


def merge_words(draft: Sequence[Token], refined: Sequence[Token]) -> tuple[Token, ...]:
    """Merges refined words with non-Chinese passages of the draft that refining would lose.

    A non-Chinese passage is kept where the refiner has no words, or Chinese words of lower
    confidence. Chinese words of the draft are always replaced.

    Args:
        draft: in order of time.
        refined: in order of time.

    Returns:
        The words in order of time.
    """
    kept: list[Token] = []
    for is_foreign, passage in groupby(draft, key=_is_foreign):
        words = list(passage)
        if not is_foreign or _confidence(words) < _MIN_CONFIDENCE:
            continue
        span = (words[0].start_ms, words[-1].end_ms)
        rivals = [word for word in refined if _is_within(word, span)]
        if any(map(_is_foreign, rivals)) or _confidence(rivals) >= _confidence(words):
            continue
        kept += words
        refined = [word for word in refined if not _is_within(word, span)]
    return _in_order([*refined, *kept])


def fill_gaps(
    draft: Sequence[Token], refined: Sequence[Token], gaps: Sequence[Span]
) -> tuple[Token, ...]:
    """Adds refined words of sufficient confidence to the gaps of the draft."""
    found = [
        word
        for word in refined
        if word.confidence >= _MIN_CONFIDENCE and any(_is_within(word, gap) for gap in gaps)
    ]
    return _in_order([*draft, *found])


def find_gaps(pcm: Pcm, words: Sequence[Token], min_ms: int) -> list[Span]:
    """Returns spans of at least `min_ms` with clear sound and no word."""
    gaps: list[Span] = []
    for start_ms, end_ms in speech_runs(pcm):
        said_until_ms = start_ms
        for word in words:
            if word.end_ms <= said_until_ms or word.start_ms >= end_ms:
                continue
            gaps.append((said_until_ms, min(word.start_ms, end_ms)))
            said_until_ms = word.end_ms
        gaps.append((said_until_ms, end_ms))
    return [(start_ms, end_ms) for start_ms, end_ms in gaps if end_ms - start_ms >= min_ms]


def _in_order(words: Sequence[Token]) -> tuple[Token, ...]:
    """Sorts words by start and removes overlap."""
    ordered = sorted(words, key=lambda word: (word.start_ms, word.end_ms))
    cut = [
        replace(word, end_ms=min(word.end_ms, after.start_ms)) for word, after in pairwise(ordered)
    ]
    return (*cut, *ordered[-1:])


def _is_foreign(word: Token) -> bool:
    letters = [character for character in word.text if character.isalpha()]
    return bool(letters) and not any(_is_han(letter) for letter in letters)


def _is_han(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith("CJK ")


def _confidence(words: Sequence[Token]) -> float:
    return sum(word.confidence for word in words) / len(words) if words else 0.0


def _is_within(word: Token, span: Span) -> bool:
    return span[0] <= (word.start_ms + word.end_ms) / 2 < max(span[1], span[0] + 1)
