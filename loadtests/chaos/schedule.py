"""Who is killed when: drawn in advance from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Target(StrEnum):
    """What a kill hits."""

    RECOGNIZER = "recognizer"
    SEGMENTER = "segmenter"
    PUNCTUATOR = "punctuator"
    INGRESS = "ingress"
    CONTROLLER = "controller"
    NODE = "node"


# How often each is hit in every two dozen kills.
_SHARES = {
    Target.RECOGNIZER: 6,
    Target.SEGMENTER: 6,
    Target.PUNCTUATOR: 4,
    Target.INGRESS: 3,
    Target.CONTROLLER: 3,
    Target.NODE: 2,
}
_QUIET_S = 5.0
_TAIL_S = 15.0


@dataclass(frozen=True, slots=True)
class Kill:
    """A kill that is due.

    Attributes:
        at_s: since the start of the load.
    """

    at_s: float
    target: Target


def plan_kills(number: int, duration_s: float, dice: random.Random) -> list[Kill]:
    """Returns kills in order of time, none in the first and last seconds of the load.

    Their times are evenly spread with a jitter; every kind of target is among them
    if there are at least as many kills as kinds.

    Raises:
        ValueError: there is no time for that many.
    """
    span_s = duration_s - _QUIET_S - _TAIL_S
    if number < 1 or span_s <= 0:
        raise ValueError("a kill needs a load that lasts longer than 20 s")
    step_s = span_s / number
    return [
        Kill(_QUIET_S + step_s * (position + 0.5 * dice.random()), target)
        for position, target in enumerate(_targets(number, dice))
    ]


def _targets(number: int, dice: random.Random) -> list[Target]:
    rest = [target for target, share in _SHARES.items() for _ in range(share - 1)]
    targets = list(_SHARES)
    while len(targets) < number:
        dice.shuffle(rest)
        targets += rest
    targets = targets[:number]
    dice.shuffle(targets)
    return targets
