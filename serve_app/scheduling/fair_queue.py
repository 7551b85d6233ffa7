"""A fair queue over callers and their requests: decides which item a model takes next."""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

from serve_app.scheduling.batch_budget import BatchLimits


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """A snapshot of a queue.

    Attributes:
        num_items: queued items.
        cost: their summed cost.
        size_s: their summed audio in s.
        background_size_s: audio of background items in s.
        oldest_wait_s: age of the oldest item.
        num_flows: requests that have items here.
        num_keys: callers that have items here.
    """

    num_items: int
    cost: int
    size_s: float
    background_size_s: float
    oldest_wait_s: float
    num_flows: int
    num_keys: int


NodeT = TypeVar("NodeT", bound="Node")

Rank: TypeAlias = tuple[float, float, float, int]
"""Start, finish (both virtual), deadline, and number of arrival."""


_CREDIT_ITEMS = 2.0
"""What newcomers are served ahead of waiting nodes, in items of the largest size: enough for
a short recording or the beginning of a long one."""

_LEAD_ITEMS = 3.0
"""How far newcomers may get ahead of what is their due, in the same measure."""

_PACE = 0.9
"""Share of the fair pace at which the lead is used up. Less than 1, so that what a
flood of newcomers has used up comes back after it."""


@dataclass(slots=True, eq=False)
class Node:
    """A caller or a request that is scheduled.

    Attributes:
        name: among its siblings.
        weight: its share, relative to theirs.
        start: virtual time of its next turn.
        credit_until: virtual time at which it came first, if others were there.
        version: of its rank; older ones that are still in the heap are void.
        waiting: it has queued items.
        noted: the debt, as a virtual time, that it was last filed under.
    """

    name: str
    weight: float = 1.0
    start: float = -math.inf
    credit_until: float = -math.inf
    version: int = 0
    waiting: bool = False
    noted: float = math.inf


class StartTimeFairQueue(Generic[NodeT]):
    """Start-time fair queueing of the nodes of one level.

    The start times of a node are spaced by the service that it gets, divided by its weight. A
    node that is new, or returns, starts `_CREDIT_ITEMS` before the last served start time, but
    not before it has paid for earlier service. So it precedes all waiting nodes. That alone would
    let a flood of new nodes, each with one small item, starve the others, since virtual time
    stands still meanwhile. Therefore a second clock advances at (nearly) the pace of a perfectly
    fair server, and a new node starts no earlier than `_LEAD_ITEMS` behind it: with n nodes
    waiting, none waits longer than the service of about 5 n items of the largest size.

    Source: Goyal, Vin and Cheng, "Start-time fair queueing", SIGCOMM 1996; the second
    clock is the system virtual time of Bennett and Zhang's WF2Q+, 1997, held back.
    """

    def __init__(self, rank: Callable[[NodeT], Rank]) -> None:
        self.nodes: dict[str, NodeT] = {}
        self.num_waiting = 0
        self._rank = rank
        self._order: list[tuple[Rank, int, NodeT]] = []
        self._in_debt: list[tuple[float, int, NodeT]] = []
        self._num_left = 0
        self._reset()

    def _reset(self) -> None:
        self._last_start = 0.0
        self._fair = 0.0
        self._largest = 0.0
        self._weight = 0.0

    @property
    def present(self) -> float:
        """Where a newcomer starts."""
        credit = self._last_start - _CREDIT_ITEMS * self._largest
        return max(credit, self._fair - _LEAD_ITEMS * self._largest)

    def is_ahead(self, node: NodeT) -> bool:
        """Whether a node is a newcomer that has not used up its credit."""
        return node.start < node.credit_until

    def enter(self, node: NodeT) -> None:
        """Adds a node that has queued items."""
        node.waiting = True
        if node.start == -math.inf:
            node.credit_until = self._last_start
        node.start = max(node.start, self.present)
        self.num_waiting += 1
        self._weight += node.weight
        self.show(node)

    def reweigh(self, node: NodeT, weight: float) -> None:
        """Changes a node's share of what is served from now on."""
        if node.waiting:
            self._weight += weight - node.weight
        node.weight = weight

    def show(self, node: NodeT) -> None:
        """Ranks a node, at first, anew, or after it was hidden."""
        node.version += 1
        heapq.heappush(self._order, (self._rank(node), node.version, node))
        if len(self._order) > 2 * self.num_waiting + 64:
            self._order = [entry for entry in self._order if entry[1] == entry[2].version]
            heapq.heapify(self._order)

    def hide(self, node: NodeT) -> None:
        """Passes over a node until it is shown again."""
        node.version += 1

    def first(self) -> NodeT | None:
        while self._order and self._order[0][1] != self._order[0][2].version:
            heapq.heappop(self._order)
        return self._order[0][2] if self._order else None

    def charge(self, node: NodeT, amount: float) -> None:
        """Charges a node for what it was served."""
        spacing = amount / node.weight
        self._largest = max(self._largest, spacing)
        self._last_start = max(self._last_start, node.start)
        self._fair = max(self._fair + _PACE * amount / self._weight, self._last_start)
        node.start += spacing
        while self._in_debt and self._in_debt[0][0] <= self.present:
            self._forget(heapq.heappop(self._in_debt)[2])

    def leave(self, node: NodeT) -> None:
        """Removes a node without queued items from the order.

        It is forgotten once the others have had as much as it did. When all have
        left, nobody owes anybody anything.
        """
        node.waiting = False
        node.version += 1
        self.num_waiting -= 1
        self._weight -= node.weight
        if self.num_waiting == 0:
            self._reset()
            self.nodes.clear()
            self._order.clear()
            self._in_debt.clear()
        elif node.start <= self.present:
            self._forget(node)
        elif node.noted != node.start:
            node.noted = node.start
            self._num_left += 1
            heapq.heappush(self._in_debt, (node.start, self._num_left, node))

    def _forget(self, node: NodeT) -> None:
        if not node.waiting and node.start <= self.present and self.nodes.get(node.name) is node:
            del self.nodes[node.name]


ItemT = TypeVar("ItemT")

_MAX_SKIPPED = 16
"""Flows whose next item does not fit that are looked past while a batch is formed."""


@dataclass(slots=True, eq=False)
class Ticket(Generic[ItemT]):
    """A queued item; pass it to `FairQueue.remove` to take it out."""

    item: ItemT
    cost: int
    size_s: float
    alone: bool
    urgent: bool
    background: bool
    deadline: float
    since: float
    number: int
    flow: _Flow[ItemT] = field(repr=False)

    @property
    def price(self) -> int:
        """What its flow is charged: at least 1, so that no flow is served forever for free."""
        return max(self.cost, 1)

    @property
    def length(self) -> int:
        """By which it is compared at equal claims: what is urgent counts as the shortest."""
        return 0 if self.urgent else self.price


@dataclass(slots=True, eq=False)
class _Flow(Node, Generic[ItemT]):
    key: _Key[ItemT] = field(kw_only=True, repr=False)
    tickets: OrderedDict[int, Ticket[ItemT]] = field(default_factory=OrderedDict)

    @property
    def head(self) -> Ticket[ItemT]:
        return next(iter(self.tickets.values()))


class _Key(Node, Generic[ItemT]):
    def __init__(self, name: str, level: StartTimeFairQueue[_Key[ItemT]]) -> None:
        super().__init__(name)
        self.level = level
        self.flows: StartTimeFairQueue[_Flow[ItemT]] = StartTimeFairQueue(_rank_of_flow)


class FairQueue(Generic[ItemT]):
    """Items of many requests of many callers, handed out in fair order.

    Busy callers (keys) share what is served, measured in cost, by their weights; the
    requests (flows) of a key share its part evenly; items of a request keep their
    order. A request that arrives starts at the present: it goes before the backlog of
    those that have had their turn, and yet nobody who waits is overtaken for ever (see
    `StartTimeFairQueue`). At equal claims what is urgent goes first, then the smaller item,
    then the earlier deadline, then the earlier arrival. Whoever has nothing here lays no
    claim: what it leaves goes to the others. What is in the background has a turn only while
    nothing else waits, and shares no batch with others.

    All operations take O(log n) time. Times are monotonic seconds of the caller's.
    """

    def __init__(self) -> None:
        self._keys: StartTimeFairQueue[_Key[ItemT]] = StartTimeFairQueue(_rank_of_key)
        self._background: StartTimeFairQueue[_Key[ItemT]] = StartTimeFairQueue(_rank_of_key)
        self._tickets: OrderedDict[int, Ticket[ItemT]] = OrderedDict()
        self._deadlines: list[tuple[float, int]] = []
        self._expired: list[ItemT] = []
        self._num_pushed = 0
        self._num_flows = 0
        self._cost = 0
        self._size_s = 0.0
        self._background_size_s = 0.0

    def __len__(self) -> int:
        return len(self._tickets)

    def push(
        self,
        item: ItemT,
        *,
        key: str,
        flow: str,
        cost: int,
        now: float,
        weight: float = 1.0,
        deadline: float | None = None,
        size_s: float = 0.0,
        alone: bool = False,
        urgent: bool = False,
        background: bool = False,
    ) -> Ticket[ItemT]:
        """Adds an item behind those of its flow.

        Args:
            item: anything.
            key: whose work it is.
            flow: which request of theirs.
            cost: what it adds to a batch.
            now: the present.
            weight: share of the key, relative to the other keys; the latest one counts.
            deadline: when it expires, None for never.
            size_s: its audio in s, for the statistics.
            alone: share no batch with others.
            urgent: goes first at equal claims, whatever its size.
            background: runs only while nothing else is queued.
        """
        self._num_pushed += 1
        level = self._background if background else self._keys
        owner = level.nodes.get(key)
        if owner is None:
            owner = level.nodes[key] = _Key(key, level)
        if owner.weight != weight:
            level.reweigh(owner, weight)
        request = owner.flows.nodes.get(flow)
        if request is None:
            request = owner.flows.nodes[flow] = _Flow(flow, key=owner)
        expires = math.inf if deadline is None else deadline
        number = self._num_pushed
        ticket = Ticket(
            item, cost, size_s, alone, urgent, background, expires, now, number, request
        )
        request.tickets[ticket.number] = self._tickets[ticket.number] = ticket
        self._cost += cost
        self._size_s += size_s
        self._background_size_s += size_s if background else 0.0
        if expires < math.inf:
            heapq.heappush(self._deadlines, (expires, ticket.number))
        if not request.waiting:
            self._num_flows += 1
            owner.flows.enter(request)
            if owner.waiting:
                level.show(owner)
            else:
                level.enter(owner)
        return ticket

    def remove(self, ticket: Ticket[ItemT]) -> bool:
        """Takes an item out; returns False if it is no longer here."""
        if ticket.number not in self._tickets:
            return False
        was_head = ticket.flow.head is ticket
        self._take(ticket)
        if was_head:
            self._settle(ticket.flow)
        return True

    def first(self) -> Ticket[ItemT] | None:
        """Returns what the next batch begins with, expired or not; None without items."""
        owner = self._keys.first() or self._background.first()
        request = owner.flows.first() if owner else None
        return request.head if request else None

    def pop_batch(
        self, limits: BatchLimits, now: float, *, only_urgent: bool = False
    ) -> list[ItemT]:
        """Takes out a batch: the first item in any case, more in fair order while they fit.

        An item that does not fit lets other flows pass, but not those behind it in its
        own, and is the first of a coming batch. A newcomer's batch is not filled up with
        the backlog of others, for which it would wait as if they had gone before it.
        Expired items are left to `pop_expired`.

        Args:
            limits: of the batch.
            now: the present.
            only_urgent: leave out what is not urgent, except for the first item.
        """
        self._expire(now)
        batch: list[ItemT] = []
        costs: list[int] = []
        skipped: list[_Flow[ItemT]] = []
        express = background = False
        while len(batch) < limits.max_items and len(skipped) < _MAX_SKIPPED:
            ticket = self.first()
            if ticket is None:
                break
            ahead = self._is_ahead(ticket.flow)
            express = express or (not batch and ahead)
            fits = limits.batch_cost([*costs, ticket.cost]) <= limits.max_cost
            unwanted = (express and not ahead) or (only_urgent and not ticket.urgent)
            if batch and ticket.background and not background:
                break
            background = ticket.background
            if batch and (ticket.alone or not fits or unwanted):
                self._hide(ticket.flow)
                skipped.append(ticket.flow)
                continue
            self._serve(ticket)
            batch.append(ticket.item)
            costs.append(ticket.cost)
            if ticket.alone:
                break
        for flow in skipped:
            flow.key.flows.show(flow)
            flow.key.level.show(flow.key)
        return batch

    def pop_expired(self, now: float) -> list[ItemT]:
        """Takes out the items whose deadline has passed, each told once."""
        self._expire(now)
        expired, self._expired = self._expired, []
        return expired

    def pop_all(self) -> list[ItemT]:
        """Takes out everything, in order of arrival."""
        items = [*self._expired, *(ticket.item for ticket in self._tickets.values())]
        self._expired = []
        for ticket in list(self._tickets.values()):
            self.remove(ticket)
        return items

    def statistics(self, now: float) -> QueueStatistics:
        oldest = next(iter(self._tickets.values()), None)
        return QueueStatistics(
            num_items=len(self._tickets),
            cost=self._cost,
            size_s=max(0.0, self._size_s) if self._tickets else 0.0,
            background_size_s=self._background_size_s if self._background.num_waiting else 0.0,
            oldest_wait_s=now - oldest.since if oldest else 0.0,
            num_flows=self._num_flows,
            num_keys=self._keys.num_waiting + self._background.num_waiting,
        )

    def _is_ahead(self, flow: _Flow[ItemT]) -> bool:
        return flow.key.flows.is_ahead(flow) or flow.key.level.is_ahead(flow.key)

    def _serve(self, ticket: Ticket[ItemT]) -> None:
        flow = ticket.flow
        self._take(ticket)
        flow.key.flows.charge(flow, ticket.price)
        flow.key.level.charge(flow.key, ticket.price)
        self._settle(flow)

    def _take(self, ticket: Ticket[ItemT]) -> None:
        del self._tickets[ticket.number]
        del ticket.flow.tickets[ticket.number]
        self._cost -= ticket.cost
        self._size_s -= ticket.size_s
        self._background_size_s -= ticket.size_s if ticket.background else 0.0

    def _settle(self, flow: _Flow[ItemT]) -> None:
        """Ranks a flow anew whose head has gone, and its key."""
        key = flow.key
        if flow.tickets:
            key.flows.show(flow)
        else:
            self._num_flows -= 1
            key.flows.leave(flow)
        if key.flows.num_waiting == 0:
            key.level.leave(key)
        elif key.flows.first() is None:
            key.level.hide(key)
        else:
            key.level.show(key)

    def _hide(self, flow: _Flow[ItemT]) -> None:
        flow.key.flows.hide(flow)
        if flow.key.flows.first() is None:
            flow.key.level.hide(flow.key)
        else:
            flow.key.level.show(flow.key)

    def _expire(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            ticket = self._tickets.get(heapq.heappop(self._deadlines)[1])
            if ticket is not None:
                self._expired.append(ticket.item)
                self.remove(ticket)
        if len(self._deadlines) > 2 * len(self._tickets) + 64:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._tickets]
            heapq.heapify(self._deadlines)


def _rank_of_flow(flow: _Flow[ItemT]) -> Rank:
    head = flow.head
    return flow.start, flow.start + head.length, head.deadline, head.number


def _rank_of_key(key: _Key[ItemT]) -> Rank:
    flow = key.flows.first()
    if flow is None:
        raise LookupError("a key without flows has no rank")
    head = flow.head
    return key.start, key.start + head.length / key.weight, head.deadline, head.number
