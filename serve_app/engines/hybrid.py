"""The hybrid engine: a draft of every chunk, refined by a second model where it is doubtful.

Paraformer speaks Mandarin and some English. Where a chunk also holds another language,
Paraformer writes nothing, or Mandarin, for what Whisper recognized well; `merged` keeps the
draft's words there.
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
"""Why a chunk is refined: its draft failed, has no words though the VAD heard speech, holds
a keyword of the request's, does not pass one of the thresholds, or leaves sound without words."""

_ALWAYS: frozenset[Reason] = frozenset({"failed", "keyword"})


class Drafter(Protocol):
    """Gives a first version of each chunk; an item does not depend on its batch-mates."""

    @property
    def is_reentrant(self) -> bool:
        """As of `ports.Recognizer`, for calls of `draft`."""
        ...

    def draft(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Draft | ChunkFailure]: ...

    def language_of(self, recognition_options: RecognitionOptions) -> str | None:
        """What an item with these hints is heard as; None where that is guessed."""
        ...

    def cost(self, num_samples: int) -> int: ...


@dataclass(frozen=True, slots=True)
class HybridOptions:
    """When a draft is not good enough, and the refiner can do better.

    Attributes:
        languages: that the refiner speaks. A chunk in another one, as it was asked for or
            guessed, keeps its draft, whatever speaks against it.
        refine_unknown: refine chunks whose language nobody named and the drafter could not
            guess, as where the draft failed.
        min_mean_log_probability: a draft whose entries are less probable is refined.
        max_compression_ratio: a draft that repeats itself more is refined.
        min_word_confidence: a draft with a word that is less certain is refined; 0 for never.
        refine_empty: refine drafts without words.
        min_gap_s: so much sound without a word of the draft is heard again, and that alone is
            filled; None for never.
        max_refined_share: most of the last audio that is refined because of doubts; None
            for no bound. With one, whether a chunk is refined depends on those before it,
            and the same recording may come out differently the next time.
        share_window_s: how much audio "the last" is.
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
    """Implements `ports.Recognizer` with two of them.

    Every chunk is drafted. Chunks whose draft is doubtful, failed, or holds one of the
    request's keywords are recognized by the refiner, if it speaks their language; its words
    replace the draft's, but for passages in another script than the Chinese one that would
    be lost (see `merging`). Where a draft that is good leaves sound without words, these alone
    are filled. If the refiner fails, the draft stays. Each result, and each word, names the
    model that it is from; results also the language that the draft was heard as.

    Args:
        drafter: hears everything, with the request's hints.
        refiner: hears the rest again, with the request's hints.
        names: of the drafter's and of the refiner's model.
        options: what is doubtful.
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
        self._allowance = (
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
        asked = list(recognition_options) or [NO_OPTIONS] * len(batch)
        drafts = self._drafter.draft(batch, asked)
        results = [self._drafted(draft) for draft in drafts]
        languages = [self._language(draft, hint) for draft, hint in zip(drafts, asked, strict=True)]
        reasons = [
            self._reason(pcm, draft, hint, language)
            for pcm, draft, hint, language in zip(batch, drafts, asked, languages, strict=True)
        ]
        again = [index for index, pcm in enumerate(batch) if self._is_refined(pcm, reasons[index])]
        if again:
            refined = self._refiner.transcribe(
                [batch[index] for index in again], [asked[index] for index in again]
            )
            for index, result in zip(again, refined, strict=True):
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
        """Words of both models; those of the other model than the result's name their own."""
        if isinstance(draft, ChunkFailure) or not draft.recognition.tokens:
            return refined.tokens
        drafted = draft.recognition.tokens
        if reason == "gap":
            named = [replace(word, model=self._refined_name) for word in refined.tokens]
            return filled(drafted, named, self._gaps(pcm, draft))
        named = [replace(word, model=self._draft_name) for word in drafted]
        return merged(named, refined.tokens)

    def _gaps(self, pcm: Pcm, draft: Draft) -> list[Span]:
        if self._options.min_gap_s is None:
            return []
        return sound_without_words(
            pcm, draft.recognition.tokens, round(self._options.min_gap_s * 1000)
        )

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
        if self._allowance is None:
            return reason is not None
        duration_s = len(pcm) / SAMPLE_RATE_HZ
        return self._allowance.ask(duration_s, reason is not None, always=reason in _ALWAYS)


def is_refinable(language: str | None, options: HybridOptions) -> bool:
    """Whether a chunk in a language, None for an unknown one, may go to the refiner at all."""
    return options.refine_unknown if language is None else language in options.languages


def reason_to_refine(
    draft: Draft | ChunkFailure, recognition_options: RecognitionOptions, options: HybridOptions
) -> Reason | None:
    """Returns what speaks against the draft of a chunk that `is_refinable`, None for nothing.

    That of `gap`, which is in the sound, is not looked for here.
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
    """Whether a text contains one of the keywords, in whatever case, spaced or not."""
    text = _folded(join_words(words))
    return any(wanted in text for keyword in keywords if (wanted := _folded(keyword)))


def _folded(text: str) -> str:
    return "".join(text.casefold().split())


class RefinementBudget:
    """Keeps the audio that is refined to a share of what was heard lately.

    What is heard adds its share, up to that of a whole window; what is refined takes its
    length. Threads may call it together.

    Args:
        share: within [0, 1].
        window_s: audio after which the past is forgotten.
    """

    def __init__(self, share: float, window_s: float) -> None:
        self._share = share
        self._most_s = share * window_s
        self._left_s = self._most_s
        self._lock = threading.Lock()

    def ask(self, duration_s: float, wanted: bool, *, always: bool = False) -> bool:
        """Returns whether a chunk may be refined.

        Args:
            duration_s: of the chunk.
            wanted: whether there is reason to.
            always: refine it whatever is left; later chunks pay for it.
        """
        with self._lock:
            self._left_s = min(self._left_s + self._share * duration_s, self._most_s)
            if not wanted or not (always or self._left_s >= duration_s):
                return False
            self._left_s = max(self._left_s - duration_s, -self._most_s)
            return True


# What is less certain than this may stay unsaid.
_MIN_CONFIDENCE = 0.5


def merged(draft: Sequence[Token], refined: Sequence[Token]) -> tuple[Token, ...]:
    """The refined words, and those of the draft in other scripts that refining would lose.

    A passage of the draft in another script than the Chinese one stays where the refiner
    heard nothing meanwhile, or Chinese that it is less sure of. Chinese words of the
    draft are always replaced.

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


def filled(
    draft: Sequence[Token], refined: Sequence[Token], gaps: Sequence[Span]
) -> tuple[Token, ...]:
    """The draft, and in its gaps the refined words that are certain enough."""
    found = [
        word
        for word in refined
        if word.confidence >= _MIN_CONFIDENCE and any(_is_within(word, gap) for gap in gaps)
    ]
    return _in_order([*draft, *found])


def sound_without_words(pcm: Pcm, words: Sequence[Token], min_ms: int) -> list[Span]:
    """Spans of at least that length in which there is clear sound and no word."""
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
    """Words by the time at which they begin; none lasts into the next one."""
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
