"""The log-probabilities of a transcript's tokens, as OpenAI lists them.

Source: OpenAI's API reference, "Create transcription": `logprobs` holds an object a token with
`token`, its UTF-8 `bytes` and `logprob`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

# pydantic, which makes the OpenAPI document of it, reads no other before Python 3.12.
from typing_extensions import TypedDict

from serve_app.core.words import needs_space
from serve_app.transcript.transcript import Sentence

_LEAST_PROBABILITY = 1e-10


class TokenLogprob(TypedDict):
    """One entry of `logprobs`."""

    token: str
    logprob: float
    bytes: list[int]


def token_logprobs(sentences: Iterable[Sentence], text_before: str = "") -> list[TokenLogprob]:
    """Returns an entry for each token; joined, their texts are that of the sentences.

    A token's text has the space before it and the mark after it with it; its probability is
    the confidence of the word alone.

    Args:
        sentences: in order.
        text_before: what they follow.
    """
    found: list[TokenLogprob] = []
    text = text_before
    for sentence in sentences:
        for marked in sentence.tokens:
            token = marked.token.text + marked.mark
            if needs_space(text, token):
                token = f" {token}"
            text += token
            probability = min(1.0, max(marked.token.confidence, _LEAST_PROBABILITY))
            found.append(
                {
                    "token": token,
                    "logprob": round(math.log(probability), 6),
                    "bytes": list(token.encode()),
                }
            )
    return found
