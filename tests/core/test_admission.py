"""Admission: limits hold, nobody is lost, nobody starves."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from serve_app.core.admission import AdmissionLine, Place
from serve_app.core.errors import AudioTooLong, Overloaded, UploadTooLarge
from serve_app.core.limits import NO_LIMITS, Limits

TOTAL = Limits(max_running=3, max_waiting=4, max_bytes=100, max_audio_s=50.0)
OF_KEY = Limits(max_running=2, max_waiting=3, max_bytes=60, max_audio_s=40.0)
KEYS = ("a", "b", "c")


def line(**limits: float) -> AdmissionLine:
    return AdmissionLine(Limits(**limits))  # type: ignore[arg-type]  # by name, in tests


def arrive(
    queue: AdmissionLine, key: str = "a", num_bytes: int = 1, now: float = 0.0, weight: float = 1.0
) -> Place:
    return queue.arrive(key, NO_LIMITS, num_bytes, None, now, weight)


class AdmissionMachine(RuleBasedStateMachine):
    """Random arrivals, corrections and departures against a plain model."""

    def __init__(self) -> None:
        super().__init__()
        self.line = AdmissionLine(TOTAL, max_retry_after_s=30.0)
        self.now = 0.0
        self.waiting: list[Place] = []
        self.running: list[Place] = []

    @rule(
        key=st.sampled_from(KEYS),
        num_bytes=st.integers(0, 60),
        weight=st.sampled_from([0.5, 1.0, 4.0]),
    )
    def arrive(self, key: str, num_bytes: int, weight: float) -> None:
        try:
            place = self.line.arrive(key, OF_KEY, num_bytes, None, self.now, weight)
        except Overloaded as error:
            assert 1 <= error.retry_after_s <= 30  # noqa: PT017 - either way is right
            full = len(self.waiting) == TOTAL.max_waiting
            of_key = sum(place.key == key for place in self.waiting)
            assert full or of_key == OF_KEY.max_waiting
            return
        (self.running if place.state == "running" else self.waiting).append(place)

    @rule(data=st.data(), num_bytes=st.integers(0, 120))
    def resize(self, data: st.DataObject, num_bytes: int) -> None:
        if self.running:
            place = data.draw(st.sampled_from(self.running))
            before = place.num_bytes
            try:
                self._promoted(self.line.resize(place, num_bytes, self.now))
            except (Overloaded, UploadTooLarge):
                assert place.num_bytes == before

    @rule(data=st.data(), audio_s=st.floats(0, 60))
    def expect_audio(self, data: st.DataObject, audio_s: float) -> None:
        if self.running:
            place = data.draw(st.sampled_from(self.running))
            before = place.audio_s
            try:
                self._promoted(self.line.expect_audio(place, audio_s, self.now))
            except (Overloaded, AudioTooLong):
                assert place.audio_s == before

    @rule(data=st.data(), processed_s=st.floats(0, 60))
    def leave(self, data: st.DataObject, processed_s: float) -> None:
        here = self.running + self.waiting
        if here:
            place = data.draw(st.sampled_from(here))
            (self.running if place in self.running else self.waiting).remove(place)
            self._promoted(self.line.leave(place, self.now, processed_s))
            assert place.state == "left"
            assert self.line.leave(place, self.now) == []

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    def _promoted(self, places: list[Place]) -> None:
        for place in places:
            self.waiting.remove(place)
            self.running.append(place)

    @invariant()
    def everybody_is_where_the_line_says(self) -> None:
        assert all(place.state == "waiting" for place in self.waiting)
        assert all(place.state == "running" for place in self.running)
        statistics = self.line.statistics(self.now)
        assert statistics.num_waiting == len(self.waiting)
        assert statistics.num_running == len(self.running)
        assert statistics.in_flight_bytes == sum(place.num_bytes for place in self.running)
        expected_s = sum(place.audio_s for place in self.running)
        assert statistics.in_flight_audio_s == pytest.approx(expected_s, abs=1e-6)

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        for limits, running, waiting in (
            (TOTAL, self.running, self.waiting),
            *((OF_KEY, _of(key, self.running), _of(key, self.waiting)) for key in KEYS),
        ):
            assert limits.max_running is not None
            assert limits.max_waiting is not None
            assert limits.max_bytes is not None
            assert limits.max_audio_s is not None
            assert len(running) <= limits.max_running
            assert len(waiting) <= limits.max_waiting
            assert sum(place.num_bytes for place in running) <= limits.max_bytes
            assert sum(place.audio_s for place in running) <= limits.max_audio_s + 1e-6

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        if not self.running:
            assert not self.waiting


def _of(key: str, places: list[Place]) -> list[Place]:
    return [place for place in places if place.key == key]


TestAdmissionMachine = AdmissionMachine.TestCase
TestAdmissionMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_first_come_begins_and_the_rest_wait_in_order() -> None:
    queue = line(max_running=1, max_waiting=2)
    first, second, third = (arrive(queue) for _ in range(3))
    assert [place.state for place in (first, second, third)] == ["running", "waiting", "waiting"]
    with pytest.raises(Overloaded):
        arrive(queue)
    assert queue.leave(first, 1.0) == [second]
    assert queue.leave(third, 2.0) == []
    assert queue.statistics(2.0).num_waiting == 0


def test_busy_key_does_not_hold_up_another() -> None:
    queue = line(max_running=1, max_waiting=10)
    running = arrive(queue, "greedy")
    for _ in range(5):
        arrive(queue, "greedy")
    modest = arrive(queue, "modest")
    assert queue.leave(running, 1.0) == [modest]


def test_keys_begin_in_proportion_to_their_weights() -> None:
    queue = line(max_running=1, max_waiting=100)
    (running,) = [arrive(queue, "other")]
    for _ in range(30):
        arrive(queue, "light", weight=1.0)
        arrive(queue, "heavy", weight=3.0)
    begun = []
    for step in range(24):
        (running,) = queue.leave(running, float(step))
        begun.append(running.key)
        queue.expect_audio(running, 10.0, float(step))
    assert begun.count("heavy") == pytest.approx(18, abs=1)


def test_long_recordings_count_for_more_than_short_ones() -> None:
    queue = line(max_running=1, max_waiting=100)
    (running,) = [arrive(queue, "other")]
    for _ in range(30):
        arrive(queue, "long")
        arrive(queue, "short")
    begun = []
    for step in range(22):
        (running,) = queue.leave(running, float(step))
        begun.append(running.key)
        queue.expect_audio(running, 100.0 if running.key == "long" else 10.0, float(step))
    assert begun.count("short") >= 5 * begun.count("long")
    assert begun.count("long") >= 2


def test_large_upload_is_not_overtaken_for_ever() -> None:
    queue = line(max_running=10, max_waiting=100, max_bytes=10)
    small = [arrive(queue, "small", 2) for _ in range(5)]
    large = arrive(queue, "large", 10)
    later = [arrive(queue, "small", 2) for _ in range(5)]
    for place in small:
        queue.leave(place, 1.0)
    assert large.state == "running"
    assert all(place.state == "waiting" for place in later)


def test_limit_of_one_key_holds_up_nobody_else() -> None:
    queue = line(max_running=10, max_waiting=10)
    one = Limits(max_running=1)
    queue.arrive("a", one, 1, None, 0.0)
    assert queue.arrive("a", one, 1, None, 0.0).state == "waiting"
    assert queue.arrive("b", one, 1, None, 0.0).state == "running"


def test_what_can_never_fit_is_told_at_once() -> None:
    queue = line(max_running=1, max_waiting=1, max_bytes=10, max_audio_s=10.0)
    with pytest.raises(UploadTooLarge):
        arrive(queue, num_bytes=11)
    with pytest.raises(AudioTooLong):
        queue.expect_audio(arrive(queue), 11.0, 0.0)


def test_nothing_begins_while_the_audio_in_flight_is_at_its_limit() -> None:
    queue = line(max_running=5, max_waiting=5, max_audio_s=10.0)
    first = arrive(queue)
    queue.expect_audio(first, 10.0, 0.0)
    second = arrive(queue)
    assert second.state == "waiting"
    assert queue.leave(first, 1.0) == [second]


def test_retry_after_follows_the_measured_drain_rate() -> None:
    def told(seconds_per_recording: float) -> float:
        queue = line(max_running=1, max_waiting=1)
        now = 0.0
        for _ in range(20):
            place = arrive(queue, now=now)
            queue.expect_audio(place, 100.0, now)
            now += seconds_per_recording
            queue.leave(place, now, 100.0)
        queue.expect_audio(arrive(queue, now=now), 100.0, now)
        arrive(queue, now=now)
        with pytest.raises(Overloaded) as refusal:
            arrive(queue, now=now)
        return refusal.value.retry_after_s

    # Two recordings of 100 s are ahead, give or take the spread.
    assert told(5.0) == pytest.approx(10.0, rel=0.25)
    assert told(20.0) == pytest.approx(40.0, rel=0.25)


def test_idle_time_does_not_slow_the_drain_rate() -> None:
    queue = line(max_running=1)
    place = arrive(queue, now=0.0)
    queue.leave(place, 10.0, 100.0)
    rate = queue.statistics(10.0).drain_rate
    queue.leave(arrive(queue, now=10_000.0), 10_000.0)
    assert queue.statistics(10_000.0).drain_rate == pytest.approx(rate)


def test_refused_callers_are_told_different_times() -> None:
    queue = AdmissionLine(Limits(max_running=1, max_waiting=0))
    queue.expect_audio(arrive(queue), 1000.0, 0.0)
    told = set()
    for _ in range(10):
        with pytest.raises(Overloaded) as refusal:
            arrive(queue)
        told.add(round(refusal.value.retry_after_s, 3))
    assert len(told) == 10
    assert max(told) <= 1.6 * min(told)


def test_retry_after_is_bounded() -> None:
    queue = AdmissionLine(Limits(max_running=1, max_waiting=0), max_retry_after_s=7.0)
    queue.expect_audio(arrive(queue), 1e6, 0.0)
    with pytest.raises(Overloaded) as refusal:
        arrive(queue)
    assert refusal.value.retry_after_s == 7.0
