"""Sentences drawn from the templates, and the split that keeps some unseen.

The split is a function of the sentence alone: whoever draws the same sentence
puts it on the same side, so a held-out sentence is never trained on.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator

from recipes.demo_packs.numerals import DIGITS, DRAWERS
from recipes.demo_packs.templates import DRILLS, TEMPLATES
from recipes.demo_packs.words import WORDS

MARKS = "，。？、"
DRILL_SHARE = 0.12
HELD_OUT_SHARE = 32  # one sentence in this many is held out
_SLOT = re.compile(r"\{(\w+)\}")
_PHRASES = ("count_item", "device_act")  # no words that could stand alone
_ANY = tuple(sorted({w for slot, ws in WORDS.items() if slot not in _PHRASES for w in ws}))
_NUMERAL_CHARACTERS = DIGITS + "十百千万两元角年月日号点半分之度下"


def draw_sentence(rng: random.Random, drill_share: float = DRILL_SHARE) -> str:
    """Draw one punctuated sentence, from either side of the split.

    Drills teach sounds: their words come without a context that would tell where
    punctuation belongs, so the punctuator is trained with a share of none.
    """
    templates = DRILLS if rng.random() < drill_share else TEMPLATES
    return fill_template(rng.choice(templates), rng)


def fill_template(template: str, rng: random.Random) -> str:
    """Fill a template's slots; no word stands in it twice."""
    used: set[str] = set()

    def fill(match: re.Match[str]) -> str:
        slot = match.group(1)
        if slot in DRAWERS:
            return DRAWERS[slot](rng)
        words = _ANY if slot == "any" else WORDS[slot]
        word = rng.choice([word for word in words if word not in used])
        used.add(word)
        return word

    return _SLOT.sub(fill, template)


def is_held_out(sentence: str) -> bool:
    """Whether a sentence is held out."""
    digest = hashlib.sha256(strip_marks(sentence).encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT_SHARE == 0


def draw_training_sentence(rng: random.Random, drill_share: float = DRILL_SHARE) -> str:
    """Draw one sentence of the training side."""
    while is_held_out(sentence := draw_sentence(rng, drill_share)):
        pass
    return sentence


def held_out_sentences(seed: int, drill_share: float = DRILL_SHARE) -> Iterator[str]:
    """Yield distinct held-out sentences without end, the same ones for a seed."""
    rng = random.Random(f"held-out {seed}")
    seen: set[str] = set()
    while True:
        sentence = draw_sentence(rng, drill_share)
        if is_held_out(sentence) and sentence not in seen:
            seen.add(sentence)
            yield sentence


def strip_marks(sentence: str) -> str:
    """Return the sentence's characters without its punctuation."""
    return "".join(character for character in sentence if character not in MARKS)


def all_characters() -> tuple[str, ...]:
    """Every character that a sentence can hold, sorted, without punctuation."""
    text = "".join(TEMPLATES + DRILLS) + "".join(map("".join, WORDS.values())) + _NUMERAL_CHARACTERS
    kept = {character for character in _SLOT.sub("", text) if character not in MARKS}
    return tuple(sorted(kept))
