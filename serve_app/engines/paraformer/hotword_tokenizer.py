"""Which packs take hotwords, and how their vocabulary writes one.

Source: the behavior of `generate_hotwords_list` in FunASR 1.4.16
(`models/seaco_paraformer/model.py`): a word in lower case is looked up whole in the
pack's `seg_dict`, Chinese characters and digits are taken one by one. FunASR goes on
with `<unk>` where it finds nothing; here that is the caller's to hear of. Signs that join
the parts of a name and are not spoken (阿卜杜拉·萨利赫, node.js, e-mail) are passed over.
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
    """Whether the model has a branch for hotwords."""
    return pack.model_class == "SeacoParaformer"


class HotwordTokenizer:
    """Turns words into ids of a pack's vocabulary.

    Args:
        pack: a recognizer's.
    """

    def __init__(self, pack: PackContents) -> None:
        self._pack = pack
        self._id_of = {text: number for number, text in enumerate(pack.tokens)}

    def ids(self, word: str) -> tuple[int, ...] | None:
        """Returns the ids of a word or phrase; None if it cannot be written with them."""
        found: list[int] = []
        if _DECIMAL.search(word):
            return None  # its point is spoken, and read in more than one way
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
        """The pack's `seg_dict`, read when it is first needed: it may be large."""
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
