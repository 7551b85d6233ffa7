"""Admission: limits hold, nobody is lost, nobody starves."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from serve_app.core.errors import AudioTooLong, Overloaded, UploadTooLarge
from serve_app.scheduling.admission import NO_LIMITS, AdmissionLine, AdmissionTicket, Limits

TOTAL = Limits(max_running=3, max_waiting=4, max_bytes=100, max_audio_s=50.0)
OF_KEY = Limits(max_running=2, max_waiting=3, max_bytes=60, max_audio_s=40.0)
KEYS = ("a", "b", "c")


def line(**limits: float) -> AdmissionLine:
    return AdmissionLine(Limits(**limits))  # type: ignore[arg-type]  # by name, in tests


def arrive(
    queue: AdmissionLine, key: str = "a", num_bytes: int = 1, now: float = 0.0, weight: float = 1.0
) -> AdmissionTicket:
    return queue.arrive(key, NO_LIMITS, num_bytes, None, now, weight)


def arrive_complete(
    queue: AdmissionLine,
    key: str = "a",
    audio_s: float = 1.0,
    now: float = 0.0,
    weight: float = 1.0,
) -> AdmissionTicket:
    """A request whose upload takes no time."""
    ticket = arrive(queue, key, now=now, weight=weight)
    queue.received(ticket, audio_s, now)
    return ticket


class AdmissionMachine(RuleBasedStateMachine):
    """Random arrivals, uploads, corrections and departures, and what must hold throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.line = AdmissionLine(TOTAL, max_retry_after_s=30.0)
        self.now = 0.0
        self.here: list[AdmissionTicket] = []

    @rule(
        key=st.sampled_from(KEYS),
        num_bytes=st.integers(0, 60),
        weight=st.sampled_from([0.5, 1.0, 4.0]),
    )
    def arrive(self, key: str, num_bytes: int, weight: float) -> None:
        try:
            ticket = self.line.arrive(key, OF_KEY, num_bytes, None, self.now, weight)
        except Overloaded as error:
            assert 1 <= error.retry_after_s <= 30  # noqa: PT017 - either way is right
            running = self.in_state("running")
            free = 3 - len(running)
            free_of_key = min(free, 2 - len(_of(key, running)))
            in_line = len(self.here) - len(running)
            in_line_of_key = len(_of(key, self.here)) - len(_of(key, running))
            full = in_line >= 4 + free or in_line_of_key >= 3 + free_of_key
            # Without room for its bytes it would have had to stand in the line proper.
            assert full or in_line >= 4 or in_line_of_key >= 3
            return
        assert ticket.state in {"waiting", "uploading"}
        self.here.append(ticket)

    @rule(data=st.data(), num_bytes=st.integers(0, 120))
    def resize(self, data: st.DataObject, num_bytes: int) -> None:
        if self.here:
            ticket = data.draw(st.sampled_from(self.here))
            before = ticket.num_bytes
            try:
                self._moved(self.line.resize(ticket, num_bytes, self.now))
            except (Overloaded, UploadTooLarge):
                assert ticket.num_bytes == before

    @rule(data=st.data(), audio_s=st.floats(0, 60))
    def receive(self, data: st.DataObject, audio_s: float) -> None:
        if self.here:
            ticket = data.draw(st.sampled_from(self.here))
            before = ticket.state
            try:
                self._moved(self.line.received(ticket, audio_s, self.now))
            except AudioTooLong:
                assert audio_s > 40
                assert ticket.state == before
            else:
                assert (ticket.state in {"ready", "running"}) == (before != "waiting")

    @rule(data=st.data(), processed_s=st.floats(0, 60))
    def leave(self, data: st.DataObject, processed_s: float) -> None:
        if self.here:
            ticket = data.draw(st.sampled_from(self.here))
            self.here.remove(ticket)
            self._moved(self.line.leave(ticket, self.now, processed_s))
            assert ticket.state == "left"
            assert self.line.leave(ticket, self.now) == []

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    def in_state(self, *states: str) -> list[AdmissionTicket]:
        return [ticket for ticket in self.here if ticket.state in states]

    def _moved(self, tickets: list[AdmissionTicket]) -> None:
        for ticket in tickets:
            assert ticket in self.here
            assert ticket.state in {"uploading", "running"}

    @invariant()
    def figures_are_those_of_the_places(self) -> None:
        statistics = self.line.statistics(self.now)
        assert statistics.num_waiting == len(self.in_state("waiting", "ready"))
        assert statistics.num_uploading == len(self.in_state("uploading"))
        assert statistics.num_running == len(self.in_state("running"))
        holding = self.in_state("uploading", "ready", "running")
        assert statistics.in_flight_bytes == sum(ticket.num_bytes for ticket in holding)
        expected_s = sum(ticket.audio_s for ticket in self.in_state("running"))
        assert statistics.in_flight_audio_s == pytest.approx(expected_s, abs=1e-6)

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        of_keys = ((OF_KEY, _of(key, self.here)) for key in KEYS)
        for limits, here in ((TOTAL, self.here), *of_keys):
            assert limits.max_running is not None
            assert limits.max_waiting is not None
            assert limits.max_bytes is not None
            assert limits.max_audio_s is not None
            running = [ticket for ticket in here if ticket.state == "running"]
            assert len(running) <= limits.max_running
            assert len(here) <= limits.max_running + limits.max_waiting
            assert sum(p.num_bytes for p in here if p.holds_bytes) <= limits.max_bytes
            assert sum(ticket.audio_s for ticket in running) <= limits.max_audio_s + 1e-6

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        if not self.in_state("running"):
            assert not self.in_state("ready")
        if not self.in_state("uploading", "ready", "running"):
            assert not self.in_state("waiting")


def _of(key: str, tickets: list[AdmissionTicket]) -> list[AdmissionTicket]:
    return [ticket for ticket in tickets if ticket.key == key]


TestAdmissionMachine = AdmissionMachine.TestCase
TestAdmissionMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_first_come_begins_and_the_rest_wait_in_order() -> None:
    queue = line(max_running=1, max_waiting=2)
    first, second, third = (arrive_complete(queue) for _ in range(3))
    assert [ticket.state for ticket in (first, second, third)] == ["running", "ready", "ready"]
    with pytest.raises(Overloaded):
        arrive(queue)
    assert queue.leave(first, 1.0) == [second]
    assert queue.leave(third, 2.0) == []
    assert queue.statistics(2.0).num_waiting == 0


def test_uploads_do_not_occupy_a_slot() -> None:
    queue = line(max_running=1, max_waiting=3)
    slow = [arrive(queue) for _ in range(3)]
    assert all(ticket.state == "uploading" for ticket in slow)
    assert arrive_complete(queue).state == "running"
    # Nor does the line grow with them.
    with pytest.raises(Overloaded):
        arrive(queue)


def test_only_the_time_in_the_queue_counts_as_waiting() -> None:
    queue = line(max_running=1, max_waiting=9, max_bytes=2)
    first = arrive(queue, num_bytes=2)
    second = arrive(queue, num_bytes=1)
    assert queue.received(first, 5.0, 10.0) == [first]
    assert queue.leave(first, 20.0) == [second]
    assert queue.received(second, 5.0, 70.0) == [second]
    assert (first.waited_s, second.waited_s) == (0.0, 20.0)


def test_busy_key_does_not_hold_up_another() -> None:
    queue = line(max_running=1, max_waiting=10)
    running = arrive_complete(queue, "greedy")
    for _ in range(5):
        arrive_complete(queue, "greedy")
    modest = arrive_complete(queue, "modest")
    assert queue.leave(running, 1.0) == [modest]


def test_keys_begin_in_proportion_to_their_weights() -> None:
    queue = line(max_running=1, max_waiting=100)
    running = arrive_complete(queue, "other", 10.0)
    for _ in range(30):
        arrive_complete(queue, "light", 10.0, weight=1.0)
        arrive_complete(queue, "heavy", 10.0, weight=3.0)
    begun = []
    for step in range(24):
        (running,) = queue.leave(running, float(step))
        begun.append(running.key)
    assert begun.count("heavy") == pytest.approx(18, abs=1)


def test_long_recordings_count_for_more_than_short_ones() -> None:
    queue = line(max_running=1, max_waiting=100)
    running = arrive_complete(queue, "other")
    for _ in range(30):
        arrive_complete(queue, "long", 100.0)
        arrive_complete(queue, "short", 10.0)
    begun = []
    for step in range(22):
        (running,) = queue.leave(running, float(step))
        begun.append(running.key)
    assert begun.count("short") >= 5 * begun.count("long")
    assert begun.count("long") >= 2


def test_large_upload_is_overtaken_only_for_a_limited_time() -> None:
    queue = line(max_running=10, max_waiting=100, max_bytes=10)
    small = [arrive(queue, "small", 2) for _ in range(5)]
    large = arrive(queue, "large", 10)
    later = [arrive(queue, "small", 2) for _ in range(5)]
    for ticket in small:
        queue.leave(ticket, 1.0)
    assert large.state == "uploading"
    assert all(ticket.state == "waiting" for ticket in later)


def test_limit_of_one_key_delays_no_other() -> None:
    queue = line(max_running=10, max_waiting=10)
    one = Limits(max_running=1)
    first, second, other = (queue.arrive(key, one, 1, None, 0.0) for key in "aab")
    for ticket in (first, second, other):
        queue.received(ticket, 1.0, 0.0)
    assert [ticket.state for ticket in (first, second, other)] == ["running", "ready", "running"]


def test_line_of_one_key_is_bounded_beside_the_line_of_all() -> None:
    queue = line(max_running=2, max_waiting=10)
    of_key = Limits(max_running=1, max_waiting=1)
    for _ in range(2):
        queue.arrive("a", of_key, 1, None, 0.0)
    with pytest.raises(Overloaded):
        queue.arrive("a", of_key, 1, None, 0.0)
    assert queue.arrive("b", of_key, 1, None, 0.0).state == "uploading"


def test_request_that_can_never_fit_is_refused_at_once() -> None:
    queue = line(max_running=1, max_waiting=1, max_bytes=10, max_audio_s=10.0)
    with pytest.raises(UploadTooLarge):
        arrive(queue, num_bytes=11)
    with pytest.raises(AudioTooLong):
        queue.received(arrive(queue), 11.0, 0.0)


def test_nothing_begins_while_the_audio_in_flight_is_at_its_limit() -> None:
    queue = line(max_running=5, max_waiting=5, max_audio_s=10.0)
    first = arrive_complete(queue, audio_s=10.0)
    second = arrive_complete(queue, audio_s=0.0)
    assert second.state == "ready"
    assert queue.leave(first, 1.0) == [second]


def test_recording_waits_for_room_for_its_own_length() -> None:
    queue = line(max_running=5, max_waiting=5, max_audio_s=10.0)
    first = arrive_complete(queue, audio_s=6.0)
    second = arrive_complete(queue, audio_s=6.0)
    assert second.state == "ready"
    assert queue.leave(first, 1.0) == [second]


def test_retry_after_follows_the_measured_drain_rate() -> None:
    def told(seconds_per_recording: float) -> float:
        queue = line(max_running=1, max_waiting=1)
        now = 0.0
        for _ in range(20):
            ticket = arrive_complete(queue, audio_s=100.0, now=now)
            now += seconds_per_recording
            queue.leave(ticket, now, 100.0)
        arrive_complete(queue, audio_s=100.0, now=now)
        arrive(queue, now=now)
        with pytest.raises(Overloaded) as refusal:
            arrive(queue, now=now)
        return refusal.value.retry_after_s

    # Two recordings of 100 s are ahead, give or take the spread.
    assert told(5.0) == pytest.approx(10.0, rel=0.25)
    assert told(20.0) == pytest.approx(40.0, rel=0.25)


def test_idle_time_does_not_slow_the_drain_rate() -> None:
    queue = line(max_running=1)
    ticket = arrive_complete(queue, now=0.0)
    queue.leave(ticket, 10.0, 100.0)
    rate = queue.statistics(10.0).throughput_per_s
    queue.leave(arrive_complete(queue, now=10_000.0), 10_000.0)
    assert queue.statistics(10_000.0).throughput_per_s == pytest.approx(rate)


def test_refused_callers_get_different_retry_times() -> None:
    queue = AdmissionLine(Limits(max_running=1, max_waiting=0))
    arrive_complete(queue, audio_s=1000.0)
    told = set()
    for _ in range(10):
        with pytest.raises(Overloaded) as refusal:
            arrive(queue)
        told.add(round(refusal.value.retry_after_s, 3))
    assert len(told) == 10
    assert max(told) <= 1.6 * min(told)


def test_retry_after_is_short_before_anything_was_measured() -> None:
    queue = line(max_running=1, max_waiting=10)
    arrive_complete(queue, audio_s=3.0)
    for _ in range(10):
        arrive(queue)
    with pytest.raises(Overloaded) as refusal:
        arrive(queue)
    assert refusal.value.retry_after_s <= 6.0


def test_retry_after_is_bounded() -> None:
    queue = AdmissionLine(Limits(max_running=1, max_waiting=0), max_retry_after_s=7.0)
    queue.leave(arrive_complete(queue, now=0.0), 1.0, 1.0)
    arrive_complete(queue, audio_s=1e6, now=1.0)
    with pytest.raises(Overloaded) as refusal:
        arrive(queue)
    assert refusal.value.retry_after_s == 7.0


def store(queue: AdmissionLine, key: str = "a", num_bytes: int = 1) -> AdmissionTicket:
    return queue.store(key, NO_LIMITS, num_bytes, 0.0)


def test_stored_upload_takes_no_slot_and_no_place() -> None:
    queue = line(max_running=1, max_waiting=1, max_bytes=100)
    stored = store(queue)
    assert arrive_complete(queue).state == "running"
    assert arrive_complete(queue).state == "ready"
    with pytest.raises(Overloaded):
        arrive(queue)
    assert queue.statistics(0.0).num_waiting == 1
    queue.leave(stored, 0.0)
    assert queue.statistics(0.0).num_left_waiting == 0


def test_stored_uploads_have_half_of_the_bytes_or_one_has_all() -> None:
    queue = line(max_bytes=100)
    large = store(queue, num_bytes=90)
    with pytest.raises(Overloaded):
        store(queue, num_bytes=5)
    queue.resize(large, 30, 0.0)
    second = store(queue, num_bytes=20)
    with pytest.raises(Overloaded):
        queue.resize(second, 21, 0.0)
    assert arrive(queue, num_bytes=50).state == "uploading"
    with pytest.raises(UploadTooLarge):
        store(queue, num_bytes=101)


def test_upload_is_not_stored_while_a_request_waits_for_its_bytes() -> None:
    queue = line(max_bytes=100)
    first = arrive(queue, num_bytes=80)
    waiting = arrive(queue, num_bytes=30)
    with pytest.raises(Overloaded):
        store(queue, "b", num_bytes=10)
    queue.leave(first, 0.0)
    assert waiting.state == "uploading"
    assert store(queue, "b", num_bytes=10).state == "storing"


def test_key_at_its_own_limit_does_not_keep_others_from_storing() -> None:
    queue = line(max_bytes=100)
    of_key = Limits(max_bytes=10)
    queue.arrive("a", of_key, 10, None, 0.0)
    assert queue.arrive("a", of_key, 10, None, 0.0).state == "waiting"
    assert store(queue, "b").state == "storing"
    with pytest.raises(Overloaded):
        queue.store("a", NO_LIMITS, 1, 0.0)


def test_number_of_stored_uploads_is_bounded() -> None:
    queue = line(max_storing=2)
    tickets = [store(queue), store(queue)]
    with pytest.raises(Overloaded):
        store(queue)
    queue.leave(tickets[0], 0.0)
    queue.leave(tickets[0], 0.0)
    assert store(queue).state == "storing"


def test_room_of_stored_uploads_is_free_again() -> None:
    queue = line(max_running=1, max_waiting=1, max_bytes=100)
    for _ in range(5):
        ticket = store(queue, num_bytes=10)
        queue.resize(ticket, 100, 0.0)
        queue.leave(ticket, 0.0)
    statistics = queue.statistics(0.0)
    assert (statistics.in_flight_bytes, statistics.num_running) == (0, 0)
    assert arrive(queue, num_bytes=100).state == "uploading"
