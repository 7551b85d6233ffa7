"""Who may begin, who waits in line, and who is sent away until later.

Synchronous and without a clock of its own, so that the ingress and the capacity
simulator run the same decisions. Times are monotonic seconds.

Source of the order between keys: start-time fair queueing (Goyal, Vin and Cheng,
SIGCOMM 1996), with a request's audio as its cost.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from dataclasses import dataclass, field

from serve_app.core.admission_place import Place
from serve_app.core.drain import DrainRate
from serve_app.core.errors import AudioTooLong, Overloaded, UploadTooLarge
from serve_app.core.limits import Limits, Load, over

__all__ = ["AdmissionLine", "AdmissionStatistics", "Place"]

_MIN_RETRY_AFTER_S = 1.0
# Refusals of one moment come back over 40 % of the time that they were given; the
# golden ratio's multiples fill it evenly however many there are.
_SPREAD = 0.4
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class AdmissionStatistics:
    """The line at one moment; `num_` of admitted, refused and left count from the start."""

    num_running: int
    num_waiting: int
    in_flight_bytes: int
    in_flight_audio_s: float
    oldest_wait_s: float
    drain_rate: float
    num_admitted: int
    num_refused: int
    num_left_waiting: int


@dataclass(slots=True)
class _Counts:
    admitted: int = 0
    refused: int = 0
    left_waiting: int = 0


@dataclass(slots=True)
class _Keys:
    """What is remembered of each key while anybody is here."""

    loads: dict[str, Load] = field(default_factory=lambda: defaultdict(Load))
    lines: dict[str, deque[Place]] = field(default_factory=dict)
    # Virtual time up to which a key has been served.
    served: dict[str, float] = field(default_factory=dict)


class AdmissionLine:
    """The state machine of admission.

    A request that has room begins at once. Otherwise it waits in line, and when
    the line is full it is refused. The next to begin is that of the key that was
    served least for its weight; within a key, the first that came. A request that
    is next but too large for what is left holds up the line, so that large uploads
    do not starve; one that only its own key's limits hold back does not.

    Args:
        limits: of all callers together.
        max_retry_after_s: bound of what a refused caller is told to wait.
    """

    def __init__(self, limits: Limits, max_retry_after_s: float = 300.0) -> None:
        self._limits = limits
        self._max_retry_after_s = max_retry_after_s
        self._all = Load()
        self._keys = _Keys()
        self._drain = DrainRate()
        self._counts = _Counts()
        self._num_arrivals = 0
        self._virtual_time = 0.0

    def arrive(
        self,
        key: str,
        key_limits: Limits,
        num_bytes: int,
        deadline: float | None,
        now: float,
        weight: float = 1.0,
    ) -> Place:
        """Returns the caller's place, running or waiting; it must be left in the end.

        Args:
            key: name of the caller's key.
            key_limits: bounds of that key.
            num_bytes: of the body as declared, or a first guess that `resize` corrects.
            deadline: when the caller stops caring; told to whoever looks after the place.
            now: monotonic time in s.
            weight: the key's share.

        Raises:
            Overloaded: neither the work nor the line has room.
            UploadTooLarge: the body is more than could ever be in flight.
        """
        self._drain.advance(now, self._all.num_running > 0)
        for limits in (self._limits, key_limits):
            if limits.max_bytes is not None and num_bytes > limits.max_bytes:
                raise UploadTooLarge(limits.max_bytes)
        self._num_arrivals += 1
        place = Place(key, key_limits, weight, deadline, now, self._num_arrivals, num_bytes)
        place.arrival_tag = self._virtual_time
        self._keys.lines.setdefault(key, deque()).append(place)
        self._count_waiting(place, 1)
        self._promote(now)
        if place.state == "waiting":
            for_key = over(self._keys.loads[key].num_waiting, key_limits.max_waiting)
            if for_key or over(self._all.num_waiting, self._limits.max_waiting):
                self._take_out(place)
                place.state = "refused"
                self._counts.refused += 1
                retry_after_s = self._retry_after_s(place, for_key)
                self._forget(key)
                raise Overloaded(retry_after_s)
        return place

    def resize(self, place: Place, num_bytes: int, now: float) -> list[Place]:
        """Corrects the bytes of a running request; returns who may begin in turn.

        Raises:
            Overloaded: they exceed what may be in flight; the place stays as it was.
            UploadTooLarge: they are more than could ever be in flight.
        """
        growth = num_bytes - place.num_bytes
        if place.state != "running" or not growth:
            return []
        if growth > 0:
            for load, limits in self._loads(place):
                if limits.max_bytes is None:
                    continue
                if num_bytes > limits.max_bytes:
                    raise UploadTooLarge(limits.max_bytes)
                if load.num_bytes + growth > limits.max_bytes:
                    self._counts.refused += 1
                    raise Overloaded(self._retry_after_s(place, load is not self._all))
        place.num_bytes = num_bytes
        for load, _ in self._loads(place):
            load.num_bytes += growth
        return self._promote(now) if growth < 0 else []

    def expect_audio(self, place: Place, audio_s: float, now: float) -> list[Place]:
        """Notes how long a running request's recording is; returns who may begin in turn.

        Raises:
            AudioTooLong: it is more than could ever be in flight.
            Overloaded: it exceeds what may be in flight now; the place stays as it was.
        """
        if place.state != "running":
            return []
        growth = audio_s - place.audio_s
        for load, limits in self._loads(place):
            if limits.max_audio_s is None:
                continue
            if audio_s > limits.max_audio_s:
                raise AudioTooLong(audio_s, limits.max_audio_s)
            if growth > 0 and load.audio_s + growth > limits.max_audio_s:
                self._counts.refused += 1
                raise Overloaded(self._retry_after_s(place, load is not self._all))
        for load, _ in self._loads(place):
            load.num_unmeasured -= not place.audio_s
            load.audio_s += growth
            load.num_unmeasured += not audio_s
        place.audio_s = audio_s
        self._keys.served[place.key] += (audio_s - place.charged_s) / place.weight
        place.charged_s = audio_s
        return self._promote(now) if growth < 0 else []

    def leave(self, place: Place, now: float, processed_audio_s: float = 0.0) -> list[Place]:
        """Frees what the request held; returns who may begin in turn. Once is enough.

        Args:
            place: running or waiting; one that has left already changes nothing.
            now: monotonic time in s.
            processed_audio_s: of the recording, if it was worked through to its end.
        """
        self._drain.advance(now, self._all.num_running > 0)
        if place.state == "waiting":
            self._take_out(place)
            self._counts.left_waiting += 1
        elif place.state == "running":
            for load, _ in self._loads(place):
                load.num_running -= 1
                load.num_bytes -= place.num_bytes
                load.num_unmeasured -= not place.audio_s
                # Sums of floats drift; nothing in flight is exactly nothing.
                load.audio_s = load.audio_s - place.audio_s if load.num_running else 0.0
            if processed_audio_s > 0:
                self._drain.credit(processed_audio_s)
        else:
            return []
        place.state = "left"
        promoted = self._promote(now)
        self._forget(place.key)
        return promoted

    def statistics(self, now: float) -> AdmissionStatistics:
        waiting = (line[0].arrived for line in self._keys.lines.values() if line)
        return AdmissionStatistics(
            num_running=self._all.num_running,
            num_waiting=self._all.num_waiting,
            in_flight_bytes=self._all.num_bytes,
            in_flight_audio_s=self._all.audio_s,
            oldest_wait_s=max(now - min(waiting, default=now), 0.0),
            drain_rate=self._drain.per_s,
            num_admitted=self._counts.admitted,
            num_refused=self._counts.refused,
            num_left_waiting=self._counts.left_waiting,
        )

    def _loads(self, place: Place) -> tuple[tuple[Load, Limits], tuple[Load, Limits]]:
        return (self._keys.loads[place.key], place.key_limits), (self._all, self._limits)

    def _promote(self, now: float) -> list[Place]:
        promoted = []
        while (place := self._next()) is not None:
            self._take_out(place)
            self._begin(place, now)
            promoted.append(place)
        return promoted

    def _next(self) -> Place | None:
        """Returns who begins next, None if nobody may."""
        heads = [line[0] for line in self._keys.lines.values() if line]
        for place in sorted(heads, key=lambda head: (self._tag(head), head.number)):
            if self._keys.loads[place.key].has_room(place.key_limits, place.num_bytes):
                return place if self._all.has_room(self._limits, place.num_bytes) else None
        return None

    def _tag(self, place: Place) -> float:
        return max(self._keys.served.get(place.key, 0.0), place.arrival_tag)

    def _begin(self, place: Place, now: float) -> None:
        tag = self._tag(place)
        self._virtual_time = max(self._virtual_time, tag)
        # The recording is not here yet: an average one is charged until it is.
        place.charged_s = self._drain.mean_audio_s
        self._keys.served[place.key] = tag + place.charged_s / place.weight
        place.state, place.began = "running", now
        for load, _ in self._loads(place):
            load.num_running += 1
            load.num_bytes += place.num_bytes
            load.num_unmeasured += 1
        self._counts.admitted += 1

    def _take_out(self, place: Place) -> None:
        line = self._keys.lines[place.key]
        line.remove(place)
        if not line:
            del self._keys.lines[place.key]
        self._count_waiting(place, -1)

    def _count_waiting(self, place: Place, change: int) -> None:
        for load, _ in self._loads(place):
            load.num_waiting += change

    def _forget(self, key: str) -> None:
        """Drops what is known of keys that nobody is here for."""
        load = self._keys.loads[key]
        if not load.num_running and not load.num_waiting:
            del self._keys.loads[key]
            if self._keys.served.get(key, 0.0) <= self._virtual_time:
                self._keys.served.pop(key, None)
        if not self._all.num_running and not self._all.num_waiting:
            self._keys.served.clear()
            self._virtual_time = 0.0

    def _retry_after_s(self, place: Place, for_key: bool) -> float:
        """Returns when what is ahead of the caller should have been worked through."""
        load = self._keys.loads[place.key] if for_key else self._all
        num_unknown = load.num_unmeasured + load.num_waiting
        ahead_s = load.audio_s + num_unknown * self._drain.mean_audio_s
        turn = self._counts.refused * _GOLDEN_RATIO % 1.0
        spread = 1 - _SPREAD / 2 + _SPREAD * turn
        wait_s = ahead_s / self._drain.per_s * spread
        return min(max(wait_s, _MIN_RETRY_AFTER_S), self._max_retry_after_s)
