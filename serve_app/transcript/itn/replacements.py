"""Replaces phrases that the recognizer writes wrong: `wrong => right`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from serve_app.core.records import Token
from serve_app.core.words import needs_space
from serve_app.transcript.transcript import MarkedToken, Sentence

MAX_REPLACEMENTS = 200
MAX_PHRASE_LETTERS = 64
_ARROW = re.compile(r"\s*(?:=>|⇒|→)\s*")


@dataclass(frozen=True, slots=True)
class Replacement:
    """A phrase and its replacement.

    Attributes:
        wrong: what the recognizer writes; Latin letters in any case.
        right: the replacement; "" removes the phrase. A phrase that is replaced by itself keeps
            its numbers in words.
    """

    wrong: str
    right: str


def parse_replacements(text: str) -> tuple[Replacement, ...]:
    """Reads a JSON object of wrong and right phrases, or lines of `wrong=>right`.

    Empty lines and lines that start with # are ignored. Commas may replace line ends if each
    part has an arrow.

    Raises:
        ValueError: the text has neither form, or too many entries.
    """
    if text.lstrip().startswith("{"):
        try:
            parsed: object = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("is not valid JSON; pass an object {wrong: right}") from None
        if not isinstance(parsed, dict) or not all(isinstance(v, str) for v in parsed.values()):
            raise ValueError("must be a JSON object of texts, or lines of wrong=>right")
        return check_replacements(parsed)
    pairs: dict[str, str] = {}
    for line in _lines(text):
        parts = _ARROW.split(line.strip())
        if len(parts) != 2:
            raise ValueError(f"{line.strip()[:MAX_PHRASE_LETTERS]!r} is not wrong=>right")
        pairs[parts[0]] = parts[1]
    return check_replacements(pairs)


def check_replacements(pairs: Mapping[str, str]) -> tuple[Replacement, ...]:
    """Returns the pairs as replacements.

    Raises:
        ValueError: there are too many, or one is empty, too long or not text.
    """
    if len(pairs) > MAX_REPLACEMENTS:
        raise ValueError(f"has {len(pairs)} entries; at most {MAX_REPLACEMENTS} are accepted")
    for wrong, right in pairs.items():
        if not wrong.strip():
            raise ValueError("has an entry without a wrong phrase")
        for phrase in (wrong, right):
            if len(phrase) > MAX_PHRASE_LETTERS:
                raise ValueError(
                    f"{phrase[:MAX_PHRASE_LETTERS]!r}… is longer than {MAX_PHRASE_LETTERS} letters"
                )
            if not phrase.isprintable():
                raise ValueError(f"{phrase!r} contains a control character")
    return tuple(Replacement(" ".join(w.split()), " ".join(r.split())) for w, r in pairs.items())


def merge_replacements(
    first: tuple[Replacement, ...], further: tuple[Replacement, ...]
) -> tuple[Replacement, ...]:
    """Returns both; for the same phrase `first` wins."""
    known = {one.wrong.lower() for one in first}
    return first + tuple(one for one in further if one.wrong.lower() not in known)


class Replacer:
    """Replaces phrases in sentences; of two that start together the longer one wins.

    A phrase must be within one clause, never across a punctuation mark; Latin letters match
    whole words only. The replaced words become one token with their times.
    """

    def __init__(self, replacements: Iterable[Replacement]) -> None:
        self._right = {one.wrong.lower(): one.right for one in replacements}
        longest_first = sorted(self._right, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_pattern, longest_first)), re.IGNORECASE)

    def replace(self, sentence: Sentence) -> Sentence | None:
        """Returns the sentence with all phrases replaced, or None if nothing is left."""
        if not self._right:
            return sentence
        tokens = [one for clause in _clauses(sentence.tokens) for one in self._clause(clause)]
        return replace(sentence, tokens=tuple(tokens)) if tokens else None

    def _clause(self, clause: list[MarkedToken]) -> list[MarkedToken]:
        text, owners = _text(clause)
        replaced: list[MarkedToken] = []
        position = 0
        for found in self._pattern.finditer(text):
            first, last = owners[found.start()], owners[found.end() - 1]
            if first < position:
                continue
            replaced.extend(clause[position:first])
            before = text[owners.index(first) : found.start()]
            after = text[found.end() : len(owners) - owners[::-1].index(last)]
            right = self._right[found.group().lower()]
            merged = _merged(clause[first : last + 1], f"{before}{right}{after}")
            if merged.token.text:
                replaced.append(merged)
            elif merged.mark and replaced:
                replaced[-1] = MarkedToken(replaced[-1].token, merged.mark)
            position = last + 1
        replaced.extend(clause[position:])
        return replaced


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        parts = re.split(r"[,，;；]", line)
        whole = all(_ARROW.search(part) for part in parts if part.strip())
        for part in parts if whole else [line]:
            if part.strip() and not part.lstrip().startswith("#"):
                yield part


def _pattern(wrong: str) -> str:
    start = r"(?<![0-9a-z])" if wrong[0].isascii() and wrong[0].isalnum() else ""
    end = r"(?![0-9a-z])" if wrong[-1].isascii() and wrong[-1].isalnum() else ""
    return start + re.escape(wrong) + end


def _clauses(tokens: tuple[MarkedToken, ...]) -> Iterator[list[MarkedToken]]:
    clause: list[MarkedToken] = []
    for marked in tokens:
        clause.append(marked)
        if marked.mark:
            yield clause
            clause = []
    if clause:
        yield clause


def _text(clause: list[MarkedToken]) -> tuple[str, list[int]]:
    """The text of the tokens, and to which of them each of its letters belongs."""
    text, owners = "", []
    for index, marked in enumerate(clause):
        word = marked.token.text
        if needs_space(text, word):
            text += " "
            owners.append(index - 1)
        text += word
        owners += [index] * len(word)
    return text, owners


def _merged(said: list[MarkedToken], text: str) -> MarkedToken:
    first, last = said[0].token, said[-1].token
    confidence = min(marked.token.confidence for marked in said)
    token = Token(text.strip(), first.start_ms, last.end_ms, confidence, first.model)
    return MarkedToken(token, said[-1].mark)
