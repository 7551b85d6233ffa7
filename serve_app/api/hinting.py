"""The form fields `hotwords` and `keywords`: words, never paths or addresses.

Source: the shapes of a list are those of FunASR's runtime, whose clients send a JSON
object of words and weights read from lines such as "阿里巴巴 20" (`runtime/docs`, 1.4.16),
and of its Python interface, which takes words with spaces between them.
"""

from __future__ import annotations

import json
import math
import unicodedata

from serve_app.core.errors import InvalidParameter
from serve_app.core.hints import Hotword

MAX_WORDS = 100
MAX_WORD_LETTERS = 32
MAX_LETTERS = 2000
MAX_WEIGHT = 100.0
_MAX_FIELD_LETTERS = 20_000
_BESIDE_LETTERS = frozenset("' -")
_FORMS = (
    "a JSON list of words, a JSON object of words and weights, or words with spaces or line "
    "breaks between them"
)


def parse_hotwords(value: str) -> tuple[Hotword, ...]:
    """Returns the hotwords of a form field, each once; the last weight of one counts.

    Takes a JSON list, a JSON object from word to weight, or plain text: words with
    spaces between them, or lines; a number that ends a line of two is the weight.

    Raises:
        InvalidParameter: the field has none of these forms, holds something else than
            words, or too much.
    """
    weights: dict[str, float] = {}
    for word, weight in _weighted("hotwords", value):
        weights[_checked("hotwords", word)] = weight
    _check_amount("hotwords", list(weights))
    return tuple(Hotword(word, weight) for word, weight in weights.items())


def parse_keywords(value: str) -> tuple[str, ...]:
    """Returns the keywords of a form field, each once; forms as of hotwords, no weights.

    Raises:
        InvalidParameter: as for hotwords, or a word has a weight.
    """
    words = list(
        dict.fromkeys(_checked("keywords", word) for word in _unweighted("keywords", value))
    )
    _check_amount("keywords", words)
    return tuple(words)


def _weighted(field: str, value: str) -> list[tuple[str, float]]:
    parsed = _parse_json(field, value)
    if isinstance(parsed, dict):
        return [(word, _weight(field, weight)) for word, weight in parsed.items()]
    if parsed is not None:
        return [(word, 1.0) for word in parsed]
    found: list[tuple[str, float]] = []
    for line in value.splitlines():
        match line.split():
            case [word, number] if _is_number(number):
                found.append((word, _weight(field, float(number))))
            case words:
                found.extend((word, 1.0) for word in words)
    return found


def _unweighted(field: str, value: str) -> list[str]:
    parsed = _parse_json(field, value)
    if isinstance(parsed, dict):
        raise InvalidParameter(field, "have no weights; give a list")
    return value.split() if parsed is None else parsed


def _parse_json(field: str, value: str) -> dict[str, object] | list[str] | None:
    """Returns what the field holds if it is JSON; None for plain text."""
    if len(value) > _MAX_FIELD_LETTERS:
        raise InvalidParameter(field, f"must not be longer than {_MAX_FIELD_LETTERS} letters")
    if value.lstrip()[:1] not in ("[", "{", '"'):
        return None
    try:
        parsed: object = json.loads(value)
    except (ValueError, RecursionError):
        raise InvalidParameter(field, f"begin like JSON and are not; give {_FORMS}") from None
    if isinstance(parsed, dict):
        return {str(word): weight for word, weight in parsed.items()}
    words = [parsed] if isinstance(parsed, str) else parsed
    texts = [word for word in words if isinstance(word, str)] if isinstance(words, list) else []
    if not isinstance(words, list) or len(texts) < len(words):
        raise InvalidParameter(field, f"must be {_FORMS}")
    return texts


def _checked(field: str, word: str) -> str:
    """Returns the word as it is compared, once it is nothing but a word."""
    word = " ".join(unicodedata.normalize("NFKC", word).split())
    strange = next((c for c in word if not c.isalnum() and c not in _BESIDE_LETTERS), None)
    if strange is not None:
        raise InvalidParameter(
            field,
            f"{word[:MAX_WORD_LETTERS]!r} has {strange!r} in it: they must be words of letters "
            "and digits, not paths or addresses",
        )
    if not any(letter.isalnum() for letter in word):
        raise InvalidParameter(field, f"{word!r} is no word")
    if len(word) > MAX_WORD_LETTERS:
        raise InvalidParameter(
            field, f"{word[:MAX_WORD_LETTERS]!r}… is longer than {MAX_WORD_LETTERS} letters"
        )
    return word


def _check_amount(field: str, words: list[str]) -> None:
    if len(words) > MAX_WORDS:
        raise InvalidParameter(field, f"are {len(words)}; at most {MAX_WORDS} are taken")
    if sum(map(len, words)) > MAX_LETTERS:
        raise InvalidParameter(field, f"have more than {MAX_LETTERS} letters in all")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and not text[0].isalpha()


def _weight(field: str, weight: object) -> float:
    number = weight if isinstance(weight, int | float) and not isinstance(weight, bool) else None
    if number is None or not math.isfinite(number) or not 0 < number <= MAX_WEIGHT:
        raise InvalidParameter(field, f"weight {weight!r} is not a number up to {MAX_WEIGHT:.0f}")
    return float(number)
