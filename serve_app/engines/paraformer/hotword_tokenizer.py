"""Encodes hotwords with the vocabulary of a pack.

Source: `generate_hotwords_list` of FunASR 1.4.16 (`models/seaco_paraformer/model.py`): a lower-case
word is looked up in the pack's `seg_dict`; Chinese characters and digits are encoded one by one.
Unlike FunASR, which continues with `<unk>`, an unknown part makes the word not encodable. Unspoken
punctuation inside names (阿卜杜拉·萨利赫, node.js, e-mail) is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from itertools import groupby

from serve_app.packs.pack import PackContents

_SEG_DICT = "seg_dict"
_UNKNOWN = "<unk>"
_DECIMAL = re.compile(r"\d[.,]\d")
# The interpuncts are U+00B7, U+2022, U+2027, U+30FB and, halfwidth, U+FF65.
_UNSPOKEN = frozenset("·•‧・･.-_,'’\"“”《》()")


def takes_hotwords(pack: PackContents) -> bool:
    """Whether the model has a hotword branch."""
    return pack.model_class == "SeacoParaformer"


class HotwordTokenizer:
    """Encodes words as ids of a pack's vocabulary.

    Args:
        pack: of a recognizer.
    """

    def __init__(self, pack: PackContents) -> None:
        self._pack = pack
        self._id_of = {text: number for number, text in enumerate(pack.tokens)}

    def ids(self, word: str) -> tuple[int, ...] | None:
        """Returns the ids of a word or phrase; None if the vocabulary cannot encode it."""
        found: list[int] = []
        if _DECIMAL.search(word):
            return None  # the decimal point is spoken, and in more than one way
        for part in word.lower().split():
            for piece in self._pieces(part):
                number = self._id_of.get(piece)
                if number is None and piece in _UNSPOKEN:
                    continue
                if number is None or piece == _UNKNOWN:
                    return None
                found.append(number)
        return tuple(found) or None

    def _pieces(self, part: str) -> Iterator[str]:
        if part in self._id_of:
            yield part
        elif part in self._segmented:
            yield from self._segmented[part]
        else:
            for latin, run in groupby(part, key=_is_latin):
                letters = "".join(run)
                if latin and letters != part:
                    yield from self._pieces(letters)
                else:
                    yield from [letters] if latin else letters

    @cached_property
    def _segmented(self) -> dict[str, tuple[str, ...]]:
        """The pack's `seg_dict`, read on first use because it may be large."""
        path = self._pack.directory / _SEG_DICT
        if not path.is_file():
            return {}
        entries: dict[str, tuple[str, ...]] = {}
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                fields = line.split()
                if len(fields) > 1:
                    entries[fields[0]] = tuple(fields[1:])
        return entries


def _is_latin(letter: str) -> bool:
    return letter == "'" or (letter.isalpha() and letter <= "\u024f")
