"""Which lengths of recordings are sent, and how often."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LengthClass:
    """Recordings of one length.

    Attributes:
        name: in reports.
        audio_s: their length.
        weight: how often they come, relative to the other classes of a mix.
    """

    name: str
    audio_s: float
    weight: float


@dataclass(frozen=True, slots=True)
class Mix:
    """Length classes, drawn by their weights."""

    classes: tuple[LengthClass, ...]

    def draw(self, dice: random.Random) -> float:
        """Returns the length of the next recording in s."""
        weights = [length.weight for length in self.classes]
        return dice.choices(self.classes, weights)[0].audio_s

    @property
    def mean_audio_s(self) -> float:
        total = sum(length.weight for length in self.classes)
        return sum(length.audio_s * length.weight for length in self.classes) / total


_CLIP = LengthClass("3 s", 3.0, 60)
_UTTERANCE = LengthClass("15 s", 15.0, 25)
_MESSAGE = LengthClass("1 min", 60.0, 10)

MIXES = {
    "clips": Mix((_CLIP,)),
    "short": Mix((_CLIP, _UTTERANCE, _MESSAGE)),
    "meetings": Mix((LengthClass("10 min", 600.0, 3), LengthClass("1 h", 3600.0, 1))),
    "mixed": Mix(
        (
            _CLIP,
            _UTTERANCE,
            _MESSAGE,
            LengthClass("10 min", 600.0, 4),
            LengthClass("1 h", 3600.0, 0.8),
            LengthClass("3 h", 10800.0, 0.2),
        )
    ),
}

# Up to which length in s a recording belongs to a class of the report.
_BOUNDS = ((5.0, "3 s"), (30.0, "15 s"), (150.0, "1 min"), (1200.0, "10 min"), (5400.0, "1 h"))
_LONGEST = "3 h"


def class_name(audio_s: float) -> str:
    """Returns the length class under which a recording is reported."""
    return next((name for bound_s, name in _BOUNDS if audio_s <= bound_s), _LONGEST)


def in_order(names: Iterable[str]) -> list[str]:
    """Returns the class names from the shortest to the longest."""
    order = [*(name for _, name in _BOUNDS), _LONGEST]
    return sorted(set(names), key=order.index)
