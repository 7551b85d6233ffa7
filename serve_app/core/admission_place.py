"""A request's place: in the line, at work, or gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from serve_app.core.limits import Limits

PlaceState: TypeAlias = Literal["waiting", "running", "refused", "left"]


@dataclass(eq=False, slots=True)
class Place:
    """One request in the line or at work; only its `AdmissionLine` changes it.

    Attributes:
        key: name of the caller's key.
        key_limits: bounds of that key.
        weight: the key's share, relative to other keys.
        deadline: when its caller stops caring.
        arrived: when it came.
        number: its position among all arrivals.
        num_bytes: reserved while it runs.
        audio_s: expected while it runs; 0 until it is known.
        state: what has become of it.
        began: when it left the line, None while it waits.
        arrival_tag: virtual time at its arrival.
        charged_s: audio that its key has been charged for it.
    """

    key: str
    key_limits: Limits
    weight: float
    deadline: float | None
    arrived: float
    number: int
    num_bytes: int
    audio_s: float = 0.0
    state: PlaceState = "waiting"
    began: float | None = None
    arrival_tag: float = 0.0
    charged_s: float = 0.0
