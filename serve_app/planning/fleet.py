"""The recognizer replicas that there are, decided on by the service's scaling policy."""

from __future__ import annotations

import random
from collections.abc import Callable

from serve_app.planning.costs import StartCost
from serve_app.planning.cpu import Clock
from serve_app.planning.replicas import ReplicaGroup, ReplicaModel
from serve_app.planning.service_config import ServiceShape
from serve_app.scheduling.autoscaling import LoadSample, ScalingPolicy


class Fleet:
    """Starts and stops replicas of the recognizer.

    Args:
        clock: the simulation's.
        station: the recognizer's.
        shape: of the service.
        start: what it takes until a replica works.
        backlog_s: audio that is still to be recognized.
        seed: of the failures.
    """

    def __init__(
        self,
        clock: Clock,
        station: ReplicaGroup,
        shape: ServiceShape,
        start: StartCost,
        backlog_s: Callable[[], float],
        seed: int,
    ) -> None:
        self._clock = clock
        self._station = station
        self._shape = shape
        self._start = start
        self._backlog_s = backlog_s
        self._random = random.Random(seed)  # noqa: S311  # a simulation, not a secret
        self._policy = ScalingPolicy(shape.scaling) if shape.scaling else None
        self._starting: list[object] = []
        self._num_held = 0
        self._held_s = 0.0
        self._since_s = 0.0
        self._direction = 0
        self.requested = 0
        """Replicas that were asked for."""
        self.peak = 0
        self.num_scalings = 0
        self.num_reversals = 0
        station.on_drained = self._drained

    @property
    def num_working(self) -> int:
        return len(self._station.replicas)

    @property
    def held_s(self) -> float:
        """Replica seconds so far, from the order to the end of each."""
        return self._held_s + (self._clock.now - self._since_s) * self._num_held

    def begin(self) -> None:
        """Has the first replicas there, warm, and starts to look after them."""
        for _ in range(self._shape.recognizer.num_replicas):
            self._hold(1)
            self._add()
        self.requested = self._shape.recognizer.num_replicas
        if self._policy is not None:
            self._clock.after(self._shape.report_interval_s, self._decide)

    def _decide(self, _: object) -> None:
        if self._policy is not None:
            self._follow(self._policy.decide(self._sample(), self._clock.now))
        self._clock.after(self._shape.report_interval_s, self._decide)

    def _sample(self) -> LoadSample:
        station, now = self._station, self._clock.now
        queued_s, running_s = station.queued_audio_s, station.running_audio_s
        done = [replica.throughput.read(now) for replica in station.replicas]
        rates = [replica.pace.rtfx for replica in station.replicas if replica.pace.rtfx > 0]
        return LoadSample(
            queued_audio_s=queued_s,
            running_audio_s=running_s,
            hidden_audio_s=max(0.0, self._backlog_s() - queued_s - running_s),
            rtfx_per_replica=sum(rates) / len(rates) if rates else None,
            num_replicas=self.requested,
            throughput=sum(done) if done else None,
        )

    def _follow(self, wanted: int) -> None:
        change = wanted - self.requested
        if change == 0:
            return
        direction = 1 if change > 0 else -1
        self.num_scalings += 1
        self.num_reversals += self._direction == -direction
        self._direction = direction
        self.requested = wanted
        for _ in range(change):
            self._order()
        for _ in range(-change):
            self._dismiss()

    def _order(self) -> None:
        per_node = self._shape.replicas_per_gpu
        has_room = -(-self._num_held // per_node) * per_node > self._num_held
        self._hold(1)
        token = object()
        self._starting.append(token)
        delay_s = self._start.replica_s + (0.0 if has_room else self._start.node_s)
        self._clock.after(delay_s, self._ready, token)

    def _ready(self, token: object) -> None:
        if token in self._starting:
            self._starting.remove(token)
            self._add()

    def _add(self) -> None:
        replica = self._station.add_replica()
        if self._shape.mtbf_s is not None:
            life_s = self._random.expovariate(1.0 / self._shape.mtbf_s)
            self._clock.after(life_s, self._fail, replica)

    def _dismiss(self) -> None:
        """Stops a replica; those that have not even started go first."""
        if self._starting:
            self._starting.pop()
            self._hold(-1)
        else:
            self._station.drain(self._station.replicas[-1])

    def _drained(self, _: ReplicaModel) -> None:
        self._hold(-1)

    def _fail(self, replica: ReplicaModel) -> None:
        if replica.alive and not replica.draining:
            self._station.kill(replica)
            self._hold(-1)
            self._order()

    def _hold(self, change: int) -> None:
        self._held_s = self.held_s
        self._since_s = self._clock.now
        self._num_held += change
        self.peak = max(self.peak, self._num_held)
