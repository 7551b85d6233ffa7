"""Turns that nodes of one level take, each according to what it had before."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

NodeT = TypeVar("NodeT", bound="Node")

Rank: TypeAlias = tuple[float, float, float, int]
"""Start, finish (both virtual), deadline, and number of arrival."""


_CREDIT_ITEMS = 2.0
"""What newcomers may have before the others' next turns, in items of the largest size:
all of a clip, the beginning of a file."""

_LEAD_ITEMS = 3.0
"""How far newcomers may get ahead of what is their due, in the same measure."""

_PACE = 0.9
"""Share of the fair pace at which the lead is used up. Less than 1, so that what a
flood of newcomers has used up comes back after it."""


@dataclass(slots=True, eq=False)
class Node:
    """Something that takes turns.

    Attributes:
        name: among its siblings.
        weight: its share, relative to theirs.
        start: virtual time of its next turn.
        credit_until: virtual time at which it came first, if others were there.
        version: of its rank; older ones that are still in the heap are void.
        waiting: it has something to do.
        noted: the debt, as a virtual time, that it was last filed under.
    """

    name: str
    weight: float = 1.0
    start: float = -math.inf
    credit_until: float = -math.inf
    version: int = 0
    waiting: bool = False
    noted: float = math.inf


class Turns(Generic[NodeT]):
    """Start-time fair queueing of the nodes of one level.

    A node's turns are spaced by what it is served, divided by its weight. A node that
    comes, or comes back, starts `_CREDIT_ITEMS` before the start of the turn that was
    taken last, but not before it has paid for what it had. So it goes before all that
    wait. That alone would let a flood of newcomers, each with one small item, starve
    the others, since the present stands still meanwhile. Therefore a second clock
    advances at (nearly) the pace of a perfectly fair server, and a newcomer starts no
    earlier than `_LEAD_ITEMS` behind it: with n nodes waiting, none waits longer than
    it takes to serve about 5 n items of the largest size.

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
        """Tells whether a node is a newcomer that has not had more than its credit."""
        return node.start < node.credit_until

    def enter(self, node: NodeT) -> None:
        """Has a node that has something to do take part."""
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
        """Lets a node pay for its turn."""
        spacing = amount / node.weight
        self._largest = max(self._largest, spacing)
        self._last_start = max(self._last_start, node.start)
        self._fair = max(self._fair + _PACE * amount / self._weight, self._last_start)
        node.start += spacing
        while self._in_debt and self._in_debt[0][0] <= self.present:
            self._forget(heapq.heappop(self._in_debt)[2])

    def leave(self, node: NodeT) -> None:
        """Has a node that has nothing left to do drop out.

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
