"""Simulated replicas of one model, and the requests and calls that they process.

`ReplicaGroup` routes calls to replicas and forms batches from the service's own `FairQueue`
and `BatchLimits`; a batch takes its measured cost. It models the loop of `MicroBatcher` and
the router of Ray Serve.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from serve_app.planning.costs import CallCost, LineCost
from serve_app.planning.cpu import Clock, Cores
from serve_app.planning.service_config import ReplicaGroupShape
from serve_app.planning.speech import Group, Recording
from serve_app.scheduling.admission import AdmissionTicket
from serve_app.scheduling.autoscaling import EwmaRate, RecordingBacklog
from serve_app.scheduling.batch_budget import BatchTimeModel
from serve_app.scheduling.fair_queue import FairQueue

_FIRST_RETRY_S = 0.5


class ReplicaGroup:
    """Routes calls to replicas and runs their batches.

    Calls go to the emptier of two replicas drawn at random, as in Ray Serve's router.
    While all replicas are full, calls wait in order of arrival.

    Args:
        clock: the simulation's.
        cores: on which the models run.
        shape: of the replicas.
        costs: of a batch, and of a call.
        unit_s: audio in a unit of cost.
        by_item: treat every chunk of a call as an item, as in the service; otherwise
            the call is one item, which makes large simulations fast.
        call_cores: on which the callers run, by default the same.
        seed: of the routing.

    Source: Mitzenmacher, "The power of two choices in randomized load balancing",
    2001; ray 2.60, serve/_private/request_router/pow_2_router.py.
    """

    def __init__(
        self,
        clock: Clock,
        cores: Cores,
        shape: ReplicaGroupShape,
        costs: tuple[LineCost, CallCost],
        *,
        unit_s: float = 0.0,
        by_item: bool = False,
        call_cores: Cores | None = None,
        seed: int = 0,
    ) -> None:
        self._clock = clock
        self._cores = cores
        self._call_cores = call_cores or cores
        self._shape = shape
        self._batch_cost, self._call_cost = costs
        self._unit_s = unit_s
        self._by_item = by_item
        self._random = random.Random(seed)  # noqa: S311  # a simulation, not a secret
        self._unrouted: deque[Call] = deque()
        self._queued_units = 0
        self._running_units = 0
        self._lost_busy_s = 0.0
        self.replicas: list[ReplicaModel] = []
        """Those that accept calls."""
        self.on_answer: Callable[[Call], None] = _ignore
        """Called with each finished call."""
        self.on_begin: Callable[[Call, float], None] | None = None
        """Called with each item of a new batch, and how long it waited here in s."""
        self.on_drained: Callable[[ReplicaModel], None] = _ignore
        """Called with each draining replica once it is empty."""
        self.num_batches = 0
        self.num_items = 0
        self.num_retries = 0

    @property
    def busy_s(self) -> float:
        """Time that models were busy, over all replicas so far."""
        return self._lost_busy_s + sum(replica.busy_s for replica in self.replicas)

    @property
    def queued_audio_s(self) -> float:
        return self._queued_units * self._unit_s

    @property
    def running_audio_s(self) -> float:
        return self._running_units * self._unit_s

    def add_replica(self) -> ReplicaModel:
        replica = ReplicaModel(self._clock.now)
        self.replicas.append(replica)
        self._route_waiting()
        return replica

    def drain(self, replica: ReplicaModel) -> None:
        """Stops sending calls to a replica."""
        self.replicas.remove(replica)
        replica.draining = True
        self._check_drained(replica)

    def kill(self, replica: ReplicaModel) -> None:
        """Kills a replica that accepts calls; its calls are sent again after a pause."""
        self.replicas.remove(replica)
        replica.alive = False
        self._lost_busy_s += replica.busy_s
        queued = replica.queue.pop_all()
        running = [item for batch in replica.batches for item in batch.items]
        self._queued_units -= sum(item[1] for item in queued)
        self._running_units -= sum(item[1] for item in running)
        for call in dict.fromkeys(item[0] for item in (*running, *queued)):
            self.num_retries += 1
            self._clock.after(_FIRST_RETRY_S, self._route, call)

    def submit(self, call: Call) -> None:
        """Sends a call."""
        cost = self._call_cost
        self._call_cores.run(cost.cpu_s, self._route, call, cost.delay_s)

    def _route(self, call: Call) -> None:
        replica = None if self._unrouted else self._choose()
        if replica is None:
            self._unrouted.append(call)
        else:
            self._receive(replica, call)

    def _choose(self) -> ReplicaModel | None:
        replicas = self.replicas
        num = len(replicas)
        if num > 2:
            first = int(self._random.random() * num)
            second = int(self._random.random() * (num - 1))
            one, other = replicas[first], replicas[second + (second >= first)]
        elif num == 2:
            one, other = replicas
            if one.num_calls == other.num_calls and self._random.random() < 0.5:
                one, other = other, one
        elif num == 1:
            one = other = replicas[0]
        else:
            return None
        chosen = one if one.num_calls <= other.num_calls else other
        if chosen.num_calls < self._shape.max_calls:
            return chosen
        # Ray keeps drawing until one has room.
        chosen = min(replicas, key=lambda replica: replica.num_calls)
        return chosen if chosen.num_calls < self._shape.max_calls else None

    def _receive(self, replica: ReplicaModel, call: Call) -> None:
        request, group, now = call.request, call.group, self._clock.now
        call.replica = replica
        call.arrived_s = now
        replica.num_calls += 1
        costs = group.frames if self._by_item else (group.total_frames,)
        call.items_left = len(costs)
        has_room = len(replica.batches) < self._shape.concurrency
        if has_room and len(costs) == 1 and not len(replica.queue):
            # An empty queue keeps no state of a single item that passes through it.
            self._queued_units += group.total_frames
            self._run(replica, [(call, costs[0])])
            return
        push = replica.queue.push
        for cost in costs:
            push(
                (call, cost),
                key=request.key,
                flow=request.flow,
                cost=cost,
                now=now,
                weight=request.weight,
                deadline=request.deadline_s,
            )
        self._queued_units += group.total_frames
        if has_room:
            self._dispatch(replica)

    def _dispatch(self, replica: ReplicaModel) -> None:
        """Forms batches while there is room, as `MicroBatcher` does."""
        now = self._clock.now
        queue = replica.queue
        while len(replica.batches) < self._shape.concurrency:
            for item in queue.pop_expired(now):
                self._queued_units -= item[1]
                self._finish_item(item[0])
            if not len(queue):
                return
            items = queue.pop_batch(replica.pace.limits(self._shape.limits), now)
            if not items:
                return
            self._run(replica, items)

    def _run(self, replica: ReplicaModel, items: list[Item]) -> None:
        now = self._clock.now
        costs = [item[1] for item in items]
        cost, units = self._shape.limits.batch_cost(costs), sum(costs)
        self._queued_units -= units
        self._running_units += units
        handover_s = self._call_cost.handover_s
        if self.on_begin is not None:
            for call, _ in items:
                self.on_begin(call, now - call.arrived_s + handover_s)
        num_chunks = len(items) if self._by_item else _num_chunks(items)
        batch = Batch(replica, items, cost, self._batch_cost.of(cost, num_chunks), now)
        replica.batches.append(batch)
        if len(replica.batches) == 1:
            self._start(batch)

    def _start(self, batch: Batch) -> None:
        """Hands a batch to the model."""
        if self._call_cost.handover_s > 0:
            self._clock.after(self._call_cost.handover_s, self._compute, batch)
        else:
            self._compute(batch)

    def _compute(self, batch: Batch) -> None:
        self._cores.run(batch.work_s, self._end, batch)

    def _end(self, batch: Batch) -> None:
        replica, now = batch.replica, self._clock.now
        if not replica.alive:
            return
        replica.batches.popleft()
        units = sum(item[1] for item in batch.items)
        self._running_units -= units
        self.num_batches += 1
        self.num_items += len(batch.items)
        replica.busy_s += batch.work_s
        replica.pace.observe(batch.cost, units * self._unit_s, batch.began_s, now)
        replica.throughput.done(units * self._unit_s, now)
        if replica.batches:
            self._start(replica.batches[0])
        for call, _ in batch.items:
            self._finish_item(call)
        self._dispatch(replica)

    def _finish_item(self, call: Call) -> None:
        call.items_left -= 1
        if call.items_left:
            return
        replica = call.replica
        if replica is not None:
            replica.num_calls -= 1
            if replica.draining:
                self._check_drained(replica)
            elif self._unrouted:
                self._route_waiting()
        if self._call_cost.answer_s > 0:
            self._call_cores.run(self._call_cost.answer_s, self.on_answer, call)
        else:
            self.on_answer(call)

    def _route_waiting(self) -> None:
        while self._unrouted and (replica := self._choose()) is not None:
            self._receive(replica, self._unrouted.popleft())

    def _check_drained(self, replica: ReplicaModel) -> None:
        if replica.num_calls == 0 and replica.alive:
            replica.alive = False
            self._lost_busy_s += replica.busy_s
            self.on_drained(replica)


def _ignore(_: object) -> None:
    return


def _num_chunks(items: list[Item]) -> int:
    return sum(len(call.group.frames) for call, _ in items)


class Request:
    """A recording on its way through the service.

    There are millions of requests and calls, so both are mutable objects with slots;
    comments name the stage that writes each group of fields.
    """

    __slots__ = (
        "arrived_s",
        "audio_s",
        "backlog",
        "blocks",
        "calls",
        "deadline_s",
        "finished",
        "flow",
        "has_labels",
        "ingress",
        "key",
        "longest_wait_s",
        "next_block",
        "num_bytes",
        "num_windows",
        "pending",
        "punctuating",
        "segmenter",
        "started_s",
        "ticket",
        "weight",
        "words",
    )

    def __init__(
        self,
        number: int,
        arrived_s: float,
        audio_s: float,
        key: str,
        weight: float,
        deadline_s: float,
    ) -> None:
        self.flow = str(number)
        self.arrived_s = arrived_s
        self.audio_s = audio_s
        self.key = key
        self.weight = weight
        self.deadline_s = deadline_s
        self.num_bytes = 0
        self.ingress = 0
        self.ticket: AdmissionTicket | None = None  # ingress
        self.segmenter: SegmenterModel | None = None  # segmenters, as the next eight
        self.backlog: RecordingBacklog | None = None
        self.blocks: Recording = ()
        self.next_block = 0
        self.pending: deque[Group] = deque()
        self.calls: deque[Call] = deque()
        self.started_s = 0.0
        self.longest_wait_s = 0.0
        self.num_windows = 0  # those that are embedded
        self.words = 0.0  # ingress, as the next two
        self.punctuating = False
        self.finished = False  # answered, refused or expired
        self.has_labels = False  # simulation


class Call:
    """A group of chunks, or of words, on its way to a replica and back.

    A group of chunks whose voices are embedded as well has a second call, `beside` the first.
    """

    __slots__ = (
        "arrived_s",
        "beside",
        "done",
        "group",
        "items_left",
        "num_parts",
        "replica",
        "request",
        "sent_s",
    )

    def __init__(self, request: Request, group: Group, sent_s: float) -> None:
        self.request = request
        self.group = group
        self.sent_s = sent_s
        self.arrived_s = sent_s  # `ReplicaGroup`, as the next two
        self.items_left = 0
        self.replica: ReplicaModel | None = None
        self.beside: Call | None = None  # segmenters, as the next two
        self.num_parts = 1  # calls without an answer yet, with the one beside it
        self.done = False


Item: TypeAlias = tuple[Call, int]
"""A call, and the cost of one of its items."""

_RATE_MEMORY_S = 60.0


class ReplicaModel:
    """State of one replica; its `ReplicaGroup` does the work.

    Attributes:
        num_calls: calls that it holds.
        busy_s: time that its model was busy.
    """

    __slots__ = (
        "alive",
        "batches",
        "busy_s",
        "draining",
        "num_calls",
        "pace",
        "queue",
        "throughput",
    )

    def __init__(self, now: float) -> None:
        self.queue: FairQueue[Item] = FairQueue()
        self.pace = BatchTimeModel()
        self.throughput = EwmaRate(_RATE_MEMORY_S, now)
        self.num_calls = 0
        self.batches: deque[Batch] = deque()
        self.busy_s = 0.0
        self.alive = True
        self.draining = False


class Batch:
    """Items that are computed together; the model runs the first batch of a replica."""

    __slots__ = ("began_s", "cost", "items", "replica", "work_s")

    def __init__(
        self, replica: ReplicaModel, items: list[Item], cost: int, work_s: float, began_s: float
    ) -> None:
        self.replica = replica
        self.items = items
        self.cost = cost
        self.work_s = work_s
        self.began_s = began_s


class SegmenterModel:
    """State of one segmenter replica: its recordings share one thread fairly."""

    __slots__ = ("busy", "busy_s", "num_recordings", "queue")

    def __init__(self) -> None:
        self.queue: FairQueue[Request] = FairQueue()
        self.num_recordings = 0
        self.busy = False
        self.busy_s = 0.0
