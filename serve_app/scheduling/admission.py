"""Admission: which requests start, which wait in line, and which are refused for now.

Synchronous and without a clock of its own, so that the ingress and the capacity simulator make
the same decisions. Times are monotonic seconds.

Source of the order between keys: start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM
1996), with a request's audio as its cost.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NoReturn, TypeAlias

from serve_app.core.errors import AudioTooLong, Overloaded, UploadTooLarge

TicketState: TypeAlias = Literal[
    "waiting", "uploading", "ready", "running", "storing", "refused", "left"
]


@dataclass(eq=False, slots=True)
class AdmissionTicket:
    """One request in the line or at work; only its `AdmissionLine` changes it.

    Attributes:
        key: name of the caller's key.
        key_limits: bounds of that key.
        weight: the key's share, relative to other keys.
        deadline: when its caller stops waiting.
        arrived: when it came.
        number: its position among all arrivals.
        num_bytes: reserved from the start of its upload on.
        audio_s: expected length of its recording; 0 until it is known.
        state: `waiting` until its body may be read, `uploading` while it arrives, `ready`
            when it is complete, `running` while it is processed; `storing` all along if it is
            only to be stored; `left` at the end.
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
    state: TicketState = "waiting"
    since: float = 0.0
    waited_s: float = 0.0
    arrival_tag: float = 0.0

    def __post_init__(self) -> None:
        self.since = self.arrived

    @property
    def holds_bytes(self) -> bool:
        return self.state in {"uploading", "ready", "running", "storing"}

    def enter(self, state: TicketState, now: float) -> None:
        """Changes the state, and adds the time in the previous one to the wait if it was one."""
        if self.state in {"waiting", "ready"}:
            self.waited_s += max(now - self.since, 0.0)
        self.state, self.since = state, now


_STORED_SHARE = 0.5
"""Of the bytes in flight, what uploads that are only stored may have."""

_MEMORY_S = 300.0
_MEAN_SHARE = 0.2
# Before anything was measured: the speed of a small CPU, and a minute of speech.
_FALLBACK_RATE = 10.0
_FALLBACK_AUDIO_S = 60.0


class ThroughputEstimator:
    """Seconds of audio finished per second of busy time.

    Work and busy time decay at the same rate, so the estimate follows the service, and idle
    time does not lower it.

    Args:
        now: monotonic time in s.
    """

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._work_s = 0.0
        self._busy_s = 0.0
        self._mean_audio_s: float | None = None

    @property
    def is_measured(self) -> bool:
        """Whether a recording has been finished; before that, estimates are defaults."""
        return bool(self._work_s and self._busy_s)

    @property
    def per_s(self) -> float:
        """Audio seconds per second; a default before the first recording was finished."""
        return self._work_s / self._busy_s if self.is_measured else _FALLBACK_RATE

    @property
    def mean_audio_s(self) -> float:
        """Expected length of a recording that is not uploaded yet."""
        return _FALLBACK_AUDIO_S if self._mean_audio_s is None else self._mean_audio_s

    def advance(self, now: float, busy: bool) -> None:
        """Counts the time since the last call as busy, or ignores it."""
        elapsed_s = max(now - self._now, 0.0)
        self._now = max(now, self._now)
        if busy and elapsed_s:
            kept = math.exp(-elapsed_s / _MEMORY_S)
            self._work_s *= kept
            # The integral of the fading weight over the elapsed time.
            self._busy_s = self._busy_s * kept + _MEMORY_S * (1 - kept)

    def credit(self, audio_s: float) -> None:
        """Counts a finished recording."""
        self._work_s += audio_s
        if self._mean_audio_s is None:
            self._mean_audio_s = audio_s
        self._mean_audio_s += _MEAN_SHARE * (audio_s - self._mean_audio_s)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what is in flight, of all callers or of one key; None is no bound.

    Attributes:
        max_running: concurrent requests.
        max_waiting: queued requests, including those whose upload is arriving.
        max_bytes: bytes of the uploads that are here or arriving.
        max_audio_s: audio of running requests in s.
        max_storing: concurrent uploads that are only stored.
    """

    max_running: int | None = None
    max_waiting: int | None = None
    max_bytes: int | None = None
    max_audio_s: float | None = None
    max_storing: int | None = None


NO_LIMITS = Limits()


@dataclass(slots=True)
class Load:
    """What is in flight, of all callers or of one key."""

    num_running: int = 0
    num_in_line: int = 0
    num_bytes: int = 0
    audio_s: float = 0.0
    num_unmeasured: int = 0
    num_storing: int = 0
    stored_bytes: int = 0

    def has_bytes(self, limits: Limits, num_bytes: int) -> bool:
        """Whether this many more bytes may arrive."""
        return limits.max_bytes is None or self.num_bytes + num_bytes <= limits.max_bytes

    def may_store(self, limits: Limits, num_bytes: int, num_others: int) -> bool:
        """Whether this many more bytes may arrive of an upload that is only stored.

        Args:
            limits: of the callers.
            num_bytes: that are to arrive.
            num_others: such uploads that are in flight; one without others may have all the
                room.
        """
        if limits.max_storing is not None and num_others >= limits.max_storing:
            return False
        if limits.max_bytes is None or not num_others:
            return self.has_bytes(limits, num_bytes)
        stored_bytes = self.stored_bytes + num_bytes
        has_share = stored_bytes <= limits.max_bytes * _STORED_SHARE
        return has_share and self.has_bytes(limits, num_bytes)

    def has_slot(self, limits: Limits, audio_s: float) -> bool:
        """Whether one more recording of that length may run."""
        if limits.max_running is not None and self.num_running >= limits.max_running:
            return False
        if limits.max_audio_s is None:
            return True
        return self.audio_s < limits.max_audio_s and self.audio_s + audio_s <= limits.max_audio_s

    def num_free(self, limits: Limits) -> float:
        """Returns how many more requests may run, infinite without a limit."""
        if limits.max_running is None:
            return math.inf
        return max(limits.max_running - self.num_running, 0)


__all__ = ["AdmissionLine", "AdmissionStatistics", "AdmissionTicket"]

MAX_RETRY_AFTER_S = 120.0
"""Upper bound of a Retry-After. OpenAI's clients give up on a longer one instead of retrying."""
_MIN_RETRY_AFTER_S = 1.0
# Of a service that has just started and has finished nothing yet. By its guesses alone the
# callers of a short outage, who all come back at once, would stay away for over a minute.
_UNMEASURED_RETRY_AFTER_S = 5.0
# Refusals of one moment come back over 40 % of the time that they were given; the
# golden ratio's multiples fill it evenly however many there are.
_SPREAD = 0.4
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2

_Lines: TypeAlias = dict[str, deque[AdmissionTicket]]


@dataclass(frozen=True, slots=True)
class AdmissionStatistics:
    """The line at one moment; `num_` of admitted, refused and left count from the start.

    Attributes:
        num_running: running requests.
        num_waiting: requests that wait for memory for their bodies or for a slot.
        num_uploading: requests whose bodies are arriving.
        in_flight_bytes: of uploads that are here or arriving.
        in_flight_audio_s: of the running requests.
        oldest_wait_s: longest wait of a queued request.
        throughput_per_s: recent seconds of audio finished per second.
        num_admitted: requests that started.
        num_refused: requests that were refused.
        num_left_waiting: requests that left before they started.
        limits: what the line admits at most.
    """

    num_running: int
    num_waiting: int
    num_uploading: int
    in_flight_bytes: int
    in_flight_audio_s: float
    oldest_wait_s: float
    throughput_per_s: float
    num_admitted: int
    num_refused: int
    num_left_waiting: int
    limits: Limits


@dataclass(slots=True)
class _Counts:
    admitted: int = 0
    refused: int = 0
    left_waiting: int = 0
    uploading: int = 0


@dataclass(slots=True)
class _Keys:
    """State per key, kept while any request is in flight."""

    loads: dict[str, Load] = field(default_factory=lambda: defaultdict(Load))
    waiting: _Lines = field(default_factory=dict)
    ready: _Lines = field(default_factory=dict)
    # Virtual time up to which a key has been served.
    served: dict[str, float] = field(default_factory=dict)


class AdmissionLine:
    """The state machine of admission.

    A request is queued on arrival, or refused if the queue is full. Its body is read as soon
    as there is room for its bytes, and occupies no processing slot meanwhile, however slowly
    it arrives. A complete request starts when a slot is free. The next request to be read or
    started is that of the key that was served least relative to its weight, and the oldest
    within the key. A request that does not fit blocks those behind it, so that large uploads
    do not starve, unless only its own key's limits hold it back.

    Args:
        limits: of all callers together.
        max_retry_after_s: bound of the Retry-After of a refused caller.
    """

    def __init__(self, limits: Limits, max_retry_after_s: float = MAX_RETRY_AFTER_S) -> None:
        self._limits = limits
        self._max_retry_after_s = max_retry_after_s
        self._all = Load()
        self._keys = _Keys()
        self._throughput = ThroughputEstimator()
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
    ) -> AdmissionTicket:
        """Returns the caller's ticket, uploading or waiting; the caller must `leave` with it.

        Args:
            key: name of the caller's key.
            key_limits: bounds of that key.
            num_bytes: of the body as declared, or a first guess that `resize` corrects.
            deadline: when the caller stops waiting; kept in the ticket.
            now: monotonic time in s.
            weight: the key's share.

        Raises:
            Overloaded: the queue is full.
            UploadTooLarge: the body is more than could ever be in flight.
        """
        self._throughput.advance(now, self._all.num_running > 0)
        for limits in (self._limits, key_limits):
            if limits.max_bytes is not None and num_bytes > limits.max_bytes:
                raise UploadTooLarge(limits.max_bytes, "admission.max_bytes")
        self._num_arrivals += 1
        ticket = AdmissionTicket(
            key, key_limits, weight, deadline, now, self._num_arrivals, num_bytes
        )
        ticket.arrival_tag = self._virtual_time
        self._refuse_if_full(ticket)
        for load, _ in self._loads(ticket):
            load.num_in_line += 1
        self._keys.waiting.setdefault(key, deque()).append(ticket)
        self._promote(now)
        if ticket.state == "waiting":
            self._refuse_if_line_is_full(ticket)
        return ticket

    def store(
        self, key: str, key_limits: Limits, num_bytes: int, now: float, weight: float = 1.0
    ) -> AdmissionTicket:
        """Returns a ticket for an upload that is only stored; the caller must `leave` with it.

        It takes no place in the queue and no slot of the requests that are processed. It never
        waits, and is refused while others wait for room for their bytes.

        Args:
            key, key_limits, num_bytes, now, weight: as in `arrive`.

        Raises:
            Overloaded: there is no room for it now.
            UploadTooLarge: the body is more than could ever be in flight.
        """
        self._num_arrivals += 1
        ticket = AdmissionTicket(key, key_limits, weight, None, now, self._num_arrivals, num_bytes)
        for load, limits in self._loads(ticket):
            if limits.max_bytes is not None and num_bytes > limits.max_bytes:
                self._forget(key)
                raise UploadTooLarge(limits.max_bytes, "admission.max_bytes")
            if not load.may_store(limits, num_bytes, num_others=load.num_storing):
                self._refuse(ticket, load)
        if self._awaits_room(key):
            self._refuse(ticket, self._all)
        for load, _ in self._loads(ticket):
            load.num_storing += 1
            load.num_bytes += num_bytes
            load.stored_bytes += num_bytes
        ticket.enter("storing", now)
        return ticket

    def resize(self, ticket: AdmissionTicket, num_bytes: int, now: float) -> list[AdmissionTicket]:
        """Corrects the bytes of a request; returns the tickets that advance.

        Raises:
            Overloaded: they exceed what may be in flight now; the ticket is unchanged.
            UploadTooLarge: they are more than could ever be in flight.
        """
        growth = num_bytes - ticket.num_bytes
        if not ticket.holds_bytes or not growth:
            return []
        if growth > 0:
            for load, limits in self._loads(ticket):
                if limits.max_bytes is not None and num_bytes > limits.max_bytes:
                    raise UploadTooLarge(limits.max_bytes, "admission.max_bytes")
                is_stored = ticket.state == "storing"
                if not (
                    load.may_store(limits, growth, load.num_storing - 1)
                    if is_stored
                    else load.has_bytes(limits, growth)
                ):
                    self._counts.refused += 1
                    raise Overloaded(self._retry_after_s(ticket, load is not self._all))
        ticket.num_bytes = num_bytes
        for load, _ in self._loads(ticket):
            load.num_bytes += growth
            if ticket.state == "storing":
                load.stored_bytes += growth
        return self._promote(now) if growth < 0 else []

    def received(
        self, ticket: AdmissionTicket, audio_s: float, now: float
    ) -> list[AdmissionTicket]:
        """Marks an upload as complete; returns the tickets that advance, perhaps this one.

        Args:
            ticket: uploading; another one changes nothing.
            audio_s: expected length of the recording, 0 if that is not known.
            now: monotonic time in s.

        Raises:
            AudioTooLong: it is more than could ever be in flight; the ticket is unchanged.
        """
        if ticket.state != "uploading":
            return []
        for limits in (ticket.key_limits, self._limits):
            if limits.max_audio_s is not None and audio_s > limits.max_audio_s:
                raise AudioTooLong(audio_s, limits.max_audio_s)
        ticket.audio_s = audio_s
        ticket.enter("ready", now)
        self._counts.uploading -= 1
        self._keys.ready.setdefault(ticket.key, deque()).append(ticket)
        return self._promote(now)

    def leave(
        self, ticket: AdmissionTicket, now: float, processed_audio_s: float = 0.0
    ) -> list[AdmissionTicket]:
        """Frees what the request held; returns the tickets that advance. Idempotent.

        Args:
            ticket: queued or running; one that has already left changes nothing.
            now: monotonic time in s.
            processed_audio_s: length of the recording, if it was processed completely.
        """
        self._throughput.advance(now, self._all.num_running > 0)
        if ticket.state in {"refused", "left"}:
            return []
        if ticket.state == "running":
            self._end(ticket)
            if processed_audio_s > 0:
                self._throughput.credit(processed_audio_s)
        elif ticket.state == "storing":
            for load, _ in self._loads(ticket):
                load.num_storing -= 1
                load.stored_bytes -= ticket.num_bytes
        else:
            self._remove_queued(ticket)
            self._counts.left_waiting += 1
        if ticket.holds_bytes:
            for load, _ in self._loads(ticket):
                load.num_bytes -= ticket.num_bytes
        ticket.enter("left", now)
        promoted = self._promote(now)
        self._forget(ticket.key)
        return promoted

    def statistics(self, now: float) -> AdmissionStatistics:
        lines = (*self._keys.waiting.values(), *self._keys.ready.values())
        return AdmissionStatistics(
            num_running=self._all.num_running,
            num_waiting=sum(map(len, lines)),
            num_uploading=self._counts.uploading,
            in_flight_bytes=self._all.num_bytes,
            in_flight_audio_s=self._all.audio_s,
            oldest_wait_s=max(now - min((line[0].since for line in lines), default=now), 0.0),
            throughput_per_s=self._throughput.per_s,
            num_admitted=self._counts.admitted,
            num_refused=self._counts.refused,
            num_left_waiting=self._counts.left_waiting,
            limits=self._limits,
        )

    def _refuse_if_full(self, ticket: AdmissionTicket) -> None:
        """Refuses a new request that exceeds the free slots and the queue."""
        free = math.inf
        # All of them first: what is free for a key cannot be more than what is free.
        for load, limits in reversed(self._loads(ticket)):
            free = min(free, load.num_free(limits))
            if limits.max_waiting is not None and load.num_in_line >= limits.max_waiting + free:
                self._refuse(ticket, load)

    def _refuse_if_line_is_full(self, ticket: AdmissionTicket) -> None:
        """Refuses a new request without room for its bytes if the queue is full."""
        for load, limits in reversed(self._loads(ticket)):
            if limits.max_waiting is not None and load.num_in_line > limits.max_waiting:
                self._remove_queued(ticket)
                self._refuse(ticket, load)

    def _refuse(self, ticket: AdmissionTicket, load: Load) -> NoReturn:
        ticket.state = "refused"
        self._counts.refused += 1
        retry_after_s = self._retry_after_s(ticket, load is not self._all)
        self._forget(ticket.key)
        raise Overloaded(retry_after_s)

    def _awaits_room(self, key: str) -> bool:
        """Whether a request waits for bytes that the key's uploads would share."""
        heads = [line[0] for line in self._keys.waiting.values()]
        return any(head.key == key or _has_bytes(*self._loads(head)[0], head) for head in heads)

    def _loads(self, ticket: AdmissionTicket) -> tuple[tuple[Load, Limits], tuple[Load, Limits]]:
        return (self._keys.loads[ticket.key], ticket.key_limits), (self._all, self._limits)

    def _promote(self, now: float) -> list[AdmissionTicket]:
        """Advances every ticket that may; returns them."""
        promoted = []
        while (ticket := self._next(self._keys.waiting, _has_bytes)) is not None:
            _remove(self._keys.waiting, ticket)
            ticket.enter("uploading", now)
            self._counts.uploading += 1
            for load, _ in self._loads(ticket):
                load.num_bytes += ticket.num_bytes
            promoted.append(ticket)
        while (ticket := self._next(self._keys.ready, _has_slot)) is not None:
            _remove(self._keys.ready, ticket)
            self._begin(ticket, now)
            promoted.append(ticket)
        return promoted

    def _next(
        self, lines: _Lines, has_room: Callable[[Load, Limits, AdmissionTicket], bool]
    ) -> AdmissionTicket | None:
        """Returns the ticket that advances next, None if none may."""
        heads = [line[0] for line in lines.values()]
        for ticket in sorted(heads, key=lambda head: (self._tag(head), head.number)):
            of_key, of_all = self._loads(ticket)
            if has_room(*of_key, ticket):
                return ticket if has_room(*of_all, ticket) else None
        return None

    def _tag(self, ticket: AdmissionTicket) -> float:
        return max(self._keys.served.get(ticket.key, 0.0), ticket.arrival_tag)

    def _begin(self, ticket: AdmissionTicket, now: float) -> None:
        tag = self._tag(ticket)
        self._virtual_time = max(self._virtual_time, tag)
        # A recording of unknown length is charged as an average one.
        charged_s = ticket.audio_s or self._throughput.mean_audio_s
        self._keys.served[ticket.key] = tag + charged_s / ticket.weight
        ticket.enter("running", now)
        for load, _ in self._loads(ticket):
            load.num_in_line -= 1
            load.num_running += 1
            load.audio_s += ticket.audio_s
            load.num_unmeasured += not ticket.audio_s
        self._counts.admitted += 1

    def _end(self, ticket: AdmissionTicket) -> None:
        for load, _ in self._loads(ticket):
            load.num_running -= 1
            load.num_unmeasured -= not ticket.audio_s
            # Sums of floats drift; nothing in flight is exactly nothing.
            load.audio_s = load.audio_s - ticket.audio_s if load.num_running else 0.0

    def _remove_queued(self, ticket: AdmissionTicket) -> None:
        """Removes a request that has not started."""
        if ticket.state == "uploading":
            self._counts.uploading -= 1
        else:
            _remove(self._keys.waiting if ticket.state == "waiting" else self._keys.ready, ticket)
        for load, _ in self._loads(ticket):
            load.num_in_line -= 1

    def _forget(self, key: str) -> None:
        """Drops the state of a key without requests."""
        load = self._keys.loads[key]
        if not load.num_running and not load.num_in_line and not load.num_storing:
            del self._keys.loads[key]
            if self._keys.served.get(key, 0.0) <= self._virtual_time:
                self._keys.served.pop(key, None)
        if not self._all.num_running and not self._all.num_in_line:
            self._keys.served.clear()
            self._virtual_time = 0.0

    def _retry_after_s(self, ticket: AdmissionTicket, for_key: bool) -> float:
        """Returns the expected time until the work ahead of the caller is done, in s."""
        load = self._keys.loads[ticket.key] if for_key else self._all
        num_unknown = load.num_unmeasured + load.num_in_line
        ahead_s = load.audio_s + num_unknown * self._throughput.mean_audio_s
        turn = self._counts.refused * _GOLDEN_RATIO % 1.0
        spread = 1 - _SPREAD / 2 + _SPREAD * turn
        wait_s = ahead_s / self._throughput.per_s
        if not self._throughput.is_measured:
            wait_s = min(wait_s, _UNMEASURED_RETRY_AFTER_S)
        return min(max(wait_s * spread, _MIN_RETRY_AFTER_S), self._max_retry_after_s)


def _has_bytes(load: Load, limits: Limits, ticket: AdmissionTicket) -> bool:
    return load.has_bytes(limits, ticket.num_bytes)


def _has_slot(load: Load, limits: Limits, ticket: AdmissionTicket) -> bool:
    return load.has_slot(limits, ticket.audio_s)


def _remove(lines: _Lines, ticket: AdmissionTicket) -> None:
    line = lines[ticket.key]
    line.remove(ticket)
    if not line:
        del lines[ticket.key]
