"""A request's place: in the line, at work, or gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from serve_app.scheduling.limits import Limits

PlaceState: TypeAlias = Literal["waiting", "uploading", "ready", "running", "refused", "left"]


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
        num_bytes: reserved from the start of its upload on.
        audio_s: expected length of its recording; 0 until it is known.
        state: `waiting` until its body may be read, `uploading` while that arrives, `ready`
            when it is complete, `running` once it is worked on; then it is gone.
        since: when it entered that state.
        waited_s: time spent waiting and ready, in s; the upload does not count.
        arrival_tag: virtual time at its arrival.
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
    since: float = 0.0
    waited_s: float = 0.0
    arrival_tag: float = 0.0

    def __post_init__(self) -> None:
        self.since = self.arrived

    @property
    def holds_bytes(self) -> bool:
        return self.state in {"uploading", "ready", "running"}

    def enter(self, state: PlaceState, now: float) -> None:
        """Changes the state, and counts the time in the last one if it was a wait."""
        if self.state in {"waiting", "ready"}:
            self.waited_s += max(now - self.since, 0.0)
        self.state, self.since = state, now
