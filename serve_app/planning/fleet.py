"""The recognizer replicas over time, as the service's scaling policy decides."""

from __future__ import annotations

import random
from collections.abc import Callable

from serve_app.planning.costs import StartCost
from serve_app.planning.cpu import Clock
from serve_app.planning.replicas import ReplicaGroup, ReplicaModel
from serve_app.planning.service_config import ServiceShape
from serve_app.scheduling.autoscaling import LoadSample, ScalingPolicy


class Fleet:
    """Starts and stops recognizer replicas.

    Args:
        clock: the simulation's.
        group: the recognizers.
        shape: of the service.
        start: time until a replica is ready.
        backlog_s: returns the audio that is still to be recognized, in s.
        seed: of the random failures.
    """

    def __init__(
        self,
        clock: Clock,
        group: ReplicaGroup,
        shape: ServiceShape,
        start: StartCost,
        backlog_s: Callable[[], float],
        seed: int,
    ) -> None:
        self._clock = clock
        self._group = group
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
        """Number of replicas that the policy wants."""
        self.peak = 0
        self.num_scalings = 0
        self.num_reversals = 0
        group.on_drained = self._drained

    @property
    def num_working(self) -> int:
        return len(self._group.replicas)

    @property
    def held_s(self) -> float:
        """Replica seconds so far, from the request for each replica to its end."""
        return self._held_s + (self._clock.now - self._since_s) * self._num_held

    def begin(self) -> None:
        """Adds the initial replicas, already warm, and starts the scaling loop."""
        for _ in range(self._shape.recognizer.num_replicas):
            self._count_held(1)
            self._add()
        self.requested = self._shape.recognizer.num_replicas
        if self._policy is not None:
            self._clock.after(self._shape.report_interval_s, self._decide)

    def _decide(self, _: object) -> None:
        if self._policy is not None:
            self._scale_to(self._policy.decide(self._sample(), self._clock.now))
        self._clock.after(self._shape.report_interval_s, self._decide)

    def _sample(self) -> LoadSample:
        group, now = self._group, self._clock.now
        queued_s, running_s = group.queued_audio_s, group.running_audio_s
        done = [replica.throughput.read(now) for replica in group.replicas]
        rates = [replica.pace.rtfx for replica in group.replicas if replica.pace.rtfx > 0]
        return LoadSample(
            queued_audio_s=queued_s,
            running_audio_s=running_s,
            hidden_audio_s=max(0.0, self._backlog_s() - queued_s - running_s),
            rtfx_per_replica=sum(rates) / len(rates) if rates else None,
            num_replicas=self.requested,
            throughput=sum(done) if done else None,
        )

    def _scale_to(self, wanted: int) -> None:
        change = wanted - self.requested
        if change == 0:
            return
        direction = 1 if change > 0 else -1
        self.num_scalings += 1
        self.num_reversals += self._direction == -direction
        self._direction = direction
        self.requested = wanted
        for _ in range(change):
            self._request_replica()
        for _ in range(-change):
            self._remove_replica()

    def _request_replica(self) -> None:
        per_node = self._shape.replicas_per_gpu
        has_room = -(-self._num_held // per_node) * per_node > self._num_held
        self._count_held(1)
        token = object()
        self._starting.append(token)
        delay_s = self._start.replica_s + (0.0 if has_room else self._start.node_s)
        self._clock.after(delay_s, self._ready, token)

    def _ready(self, token: object) -> None:
        if token in self._starting:
            self._starting.remove(token)
            self._add()

    def _add(self) -> None:
        replica = self._group.add_replica()
        if self._shape.mtbf_s is not None:
            life_s = self._random.expovariate(1.0 / self._shape.mtbf_s)
            self._clock.after(life_s, self._fail, replica)

    def _remove_replica(self) -> None:
        """Stops a replica, preferably one that is still starting."""
        if self._starting:
            self._starting.pop()
            self._count_held(-1)
        else:
            self._group.drain(self._group.replicas[-1])

    def _drained(self, _: ReplicaModel) -> None:
        self._count_held(-1)

    def _fail(self, replica: ReplicaModel) -> None:
        if replica.alive and not replica.draining:
            self._group.kill(replica)
            self._count_held(-1)
            self._request_replica()

    def _count_held(self, change: int) -> None:
        self._held_s = self.held_s
        self._since_s = self._clock.now
        self._num_held += change
        self.peak = max(self.peak, self._num_held)
