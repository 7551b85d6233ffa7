"""How the service ends."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from serve_app.core.in_flight import InFlightCounter
from serve_app.hosting.stopping import Drain, StopRequested, StopSignals, num_unsent


class Time:
    """A clock that goes on when somebody sleeps, and something that happens then."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        while self.due and self.due[0][0] <= self.now_s:
            self.due.pop(0)[1]()


@pytest.fixture
def counter(tmp_path: Path) -> InFlightCounter:
    return InFlightCounter(tmp_path)


def drain(directory: Path, time: Time, told: list[str], limit_s: float = 60.0) -> Drain:
    return Drain(directory, limit_s, told.append, time.clock, time.sleep)


def test_service_without_requests_is_drained_at_once(
    tmp_path: Path, counter: InFlightCounter
) -> None:
    time, told = Time(), list[str]()
    assert drain(tmp_path, time, told).run() == 0
    assert time.now_s < 2
    assert told == []
    assert counter.is_draining


def test_drain_waits_for_running_requests(tmp_path: Path, counter: InFlightCounter) -> None:
    time, told = Time(), list[str]()
    counter.enter()
    counter.enter()
    time.due = [(20.0, counter.leave), (41.0, counter.leave)]
    assert drain(tmp_path, time, told).run() == 0
    assert 41 <= time.now_s < 43
    assert told[0].startswith("waiting for 2 running requests")
    assert told[-1].startswith("waiting for 1 running requests")


def test_wait_has_a_limit(tmp_path: Path, counter: InFlightCounter) -> None:
    time = Time()
    counter.enter()
    assert drain(tmp_path, time, [], limit_s=30).run() == 1
    assert 30 <= time.now_s < 31


def test_request_that_reaches_its_replica_late_is_still_waited_for(
    tmp_path: Path, counter: InFlightCounter
) -> None:
    time = Time()
    time.due = [(0.3, counter.enter), (5.0, counter.leave)]
    assert drain(tmp_path, time, []).run() == 0
    assert time.now_s >= 5


def test_drain_does_not_wait_for_a_node_that_has_died(
    tmp_path: Path, counter: InFlightCounter
) -> None:
    counter.enter()
    assert drain(tmp_path, Time(), []).run(lambda: "raylet has ended") == 1


def test_first_signal_stops_gracefully_and_the_second_at_once() -> None:
    ended: list[bool] = []
    signals = StopSignals(lambda: ended.append(True))
    signals.started()
    signals.receive(signal.SIGTERM)
    assert signals.is_stop_requested
    assert not ended
    signals.receive(signal.SIGINT)
    assert ended


def test_signal_during_the_start_ends_the_start() -> None:
    signals = StopSignals(lambda: None)
    with pytest.raises(StopRequested) as stop:
        signals.receive(signal.SIGINT)
    assert stop.value.number == signal.SIGINT


def test_answer_that_its_caller_has_not_read_is_counted_until_it_has() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        reader = socket.create_connection(("127.0.0.1", port))
        sender, _ = listener.accept()
        with reader, sender:
            assert num_unsent(port) == 0
            unread = fill(sender)
            assert num_unsent(port) > 0
            while unread:
                unread -= len(reader.recv(1 << 20))
            assert num_unsent(port) == 0


def fill(sender: socket.socket) -> int:
    """Sends as much as goes without being read; returns how much that was."""
    sender.setblocking(False)
    total = 0
    while True:
        try:
            total += sender.send(b"x" * 65536)
        except BlockingIOError:
            return total
