"""What a Paraformer network says about one utterance, and the words that it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serve_app.core.chunks import SAMPLES_PER_MS, ChunkFailure, Pcm, Recognition, Token
from serve_app.engines.timestamps import Span, spans_from_centres, spans_from_peaks
from serve_app.engines.tokens import display_tokens

_RESERVED_IDS = (0, 1, 2)  # blank, sos, eos: never shown


@dataclass(frozen=True, slots=True)
class Decoded:
    """One utterance after the network; arrays are [num_tokens] unless they say otherwise.

    Attributes:
        ids: of whatever integer type: the best entry of the vocabulary.
        confidences: float32, their probabilities.
        centres: float64, where each token lies, in encoder frames, ascending.
        fine_alphas: float32 [3 * encoder frames], the timestamp head's weights, scaled to
            a sum of num_tokens; None without a head, or without tokens.
    """

    ids: npt.NDArray[np.integer[Any]]
    confidences: npt.NDArray[np.float32]
    centres: npt.NDArray[np.float64]
    fine_alphas: npt.NDArray[np.float32] | None

    @property
    def shown(self) -> npt.NDArray[np.bool_]:
        """Which tokens are words: not blank, sos and eos."""
        return ~np.isin(self.ids, _RESERVED_IDS)

    def spans(self, duration_ms: int) -> list[Span]:
        """Times of the tokens that are shown, in an utterance of that length."""
        shown = self.shown
        num_shown = int(shown.sum())
        if self.fine_alphas is not None and num_shown > 0:
            spans = spans_from_peaks(self.fine_alphas, num_shown, duration_ms)
            if spans is not None:
                return spans
        return spans_from_centres(self.centres[shown], duration_ms)


def recognition_of(
    pcm: Pcm, decoded: Decoded | ChunkFailure | None, names: Sequence[str]
) -> Recognition | ChunkFailure:
    """Returns the words of an utterance.

    Args:
        pcm: the utterance.
        decoded: None where there was nothing to be heard.
        names: the vocabulary.
    """
    if decoded is None:
        return Recognition(tokens=())
    if isinstance(decoded, ChunkFailure):
        return decoded
    shown = decoded.shown
    rows = zip(
        decoded.ids[shown].tolist(),
        decoded.confidences[shown].tolist(),
        decoded.spans(len(pcm) // SAMPLES_PER_MS),
        strict=True,
    )
    return Recognition(
        display_tokens(
            Token(names[token_id], start_ms, end_ms, confidence)
            for token_id, confidence, (start_ms, end_ms) in rows
        )
    )


def shown_ids(decoded: Decoded | ChunkFailure | None) -> list[int]:
    """The vocabulary ids of an utterance, without blank, sos and eos."""
    return decoded.ids[decoded.shown].tolist() if isinstance(decoded, Decoded) else []


def overflow() -> ChunkFailure:
    """What becomes of an utterance whose scores are not finite."""
    return ChunkFailure("non_finite_scores", "the model's scores overflowed")
