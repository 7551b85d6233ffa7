"""Parses hotwords as callers write them: words, never file paths or URLs.

Source: the shapes of a list are those of FunASR's runtime, whose clients send a JSON
object of words and weights read from lines such as "阿里巴巴 20" (`runtime/docs`, 1.4.16),
and of its Python interface, which takes words with spaces between them; OpenAI's
`keywords` is a list of words or phrases.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from serve_app.api.fields import parse_json, split_values
from serve_app.core.errors import InvalidParameter
from serve_app.core.records import Hotword

MAX_WORDS = 100
MAX_WORD_LETTERS = 32
MAX_LETTERS = 2000
MAX_WEIGHT = 100.0
_MAX_FIELD_LETTERS = 20_000
_OTHERWISE = "a JSON list or words separated by spaces"
_BETWEEN_PHRASES = re.compile(r"[,，、;；\n\r\v\f\u0085\u2028\u2029]")
_ADDRESS = re.compile(r"\w+:[/\\]|file:|[/~\\]|\.{1,2}[/\\]", re.ASCII | re.IGNORECASE)
_FILE_NAME = re.compile(r".*\.(txt|text|csv|json|lst|list)", re.IGNORECASE)
_SPECIAL_TOKEN = re.compile(r"<\S*>")


def parse_hotwords(value: str) -> tuple[Hotword, ...]:
    """Returns the hotwords of a text, each once; the last weight of one counts.

    Takes a JSON list, a JSON object from word to weight, or plain text: words with
    spaces, commas or line breaks between them; a number after a word that stands alone
    between two commas or breaks is its weight.

    Raises:
        InvalidParameter: the text has none of these forms, holds something other than
            words, or too much.
    """
    return hotwords_of([value], (), None)


def hotwords_of(
    texts: Sequence[str],
    entries: Sequence[str],
    weights: Mapping[str, str] | None,
    name: str = "hotwords",
) -> tuple[Hotword, ...]:
    """Returns the hotwords of a request's fields, each once; the last weight of one counts.

    Args:
        texts: each as of `parse_hotwords`.
        entries: each a word or phrase, or several with commas between them, or JSON.
        weights: by word.
        name: of the field, for messages.

    Raises:
        InvalidParameter: as of `parse_hotwords`.
    """
    weights = weights or {}
    _check_length(name, [*texts, *entries, *weights])
    found: list[tuple[str, object]] = []
    for text in texts:
        found += _of_json(name, text) if _is_json(text) else _of_plain(text)
    for entry in entries:
        if _is_json(entry):
            found += _of_json(name, entry)
        else:
            found += [(phrase, 1.0) for phrase in split_values(name, [entry])]
    found += weights.items()
    words: dict[str, float] = {}
    for word, weight in found:
        words[_checked(name, word)] = _weight(name, weight)
    _check_amount(name, list(words))
    return tuple(Hotword(word, weight) for word, weight in words.items())


def unweighted(name: str, values: Sequence[str]) -> tuple[str, ...]:
    """Returns words for which there are no weights, each once; forms as of hotwords.

    Raises:
        InvalidParameter: as for hotwords, or a word has a weight.
    """
    _check_length(name, values)
    words: dict[str, None] = {}
    for value in values:
        if _is_json(value):
            if value.lstrip().startswith("{"):
                raise InvalidParameter(name, "must be a list; weights are not supported here")
            found = [word for word, _ in _of_json(name, value)]
        else:
            found = _BETWEEN_PHRASES.sub(" ", value).split()
        words.update((_checked(name, word), None) for word in found)
    _check_amount(name, list(words))
    return tuple(words)


def _check_length(name: str, values: Iterable[str]) -> None:
    if sum(map(len, values)) > _MAX_FIELD_LETTERS:
        raise InvalidParameter(name, f"must not be longer than {_MAX_FIELD_LETTERS} characters")


def _is_json(text: str) -> bool:
    return text.lstrip()[:1] in ("[", "{", '"')


def _of_json(name: str, text: str) -> list[tuple[str, object]]:
    parsed = parse_json(name, text, _OTHERWISE)
    if isinstance(parsed, dict):
        return [(str(word), weight) for word, weight in parsed.items()]
    words = [parsed] if isinstance(parsed, str) else parsed
    found: list[tuple[str, object]] = []
    if isinstance(words, list):
        found = [(word, 1.0) for word in words if isinstance(word, str)]
    if not isinstance(words, list) or len(found) < len(words):
        raise InvalidParameter(
            name,
            f"must be a JSON list of words, a JSON object that maps words to weights, or {_PLAIN}",
        )
    return [(word, weight) for word, weight in found if word.strip()]


_PLAIN = "words separated by spaces, commas or line breaks"


def _of_plain(text: str) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for phrase in _BETWEEN_PHRASES.split(text):
        match phrase.split():
            case [word, number] if _is_number(number):
                found.append((word, number))
            case words:
                found.extend((word, 1.0) for word in words)
    return found


def _checked(name: str, word: str) -> str:
    """Returns the word as it is compared, once it is nothing but a word."""
    word = " ".join(unicodedata.normalize("NFKC", word).split())
    shown = repr(word[:MAX_WORD_LETTERS])
    if not word.isprintable() or _SPECIAL_TOKEN.fullmatch(word):
        raise InvalidParameter(name, f"contains {shown}, which is not a word")
    if _ADDRESS.match(word) or _FILE_NAME.fullmatch(word) or "://" in word or "\\" in word:
        raise InvalidParameter(name, f"must contain words, not file paths or URLs such as {shown}")
    if len(word) > MAX_WORD_LETTERS:
        raise InvalidParameter(
            name, f"contains {shown}…, which is longer than {MAX_WORD_LETTERS} characters"
        )
    return word


def _check_amount(name: str, words: list[str]) -> None:
    if len(words) > MAX_WORDS:
        raise InvalidParameter(name, f"has {len(words)} words; at most {MAX_WORDS} are accepted")
    if sum(map(len, words)) > MAX_LETTERS:
        raise InvalidParameter(name, f"has more than {MAX_LETTERS} characters in total")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and not text[0].isalpha()


def _weight(name: str, weight: object) -> float:
    number = weight
    if isinstance(weight, str):
        number = float(weight) if _is_number(weight.strip() or "-") else None
    if (
        isinstance(number, bool)
        or not isinstance(number, int | float)
        or not 0 < number <= MAX_WEIGHT
        or not math.isfinite(number)
    ):
        raise InvalidParameter(
            name,
            f"has the weight {weight!r}; a weight must be a number above 0 and at "
            f"most {MAX_WEIGHT:.0f}",
        )
    return float(number)
