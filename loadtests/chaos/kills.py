"""Kills by a seeded schedule, of nothing but processes that this one has started."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import psutil

from loadtests.harness.nodes import LocalNodes
from loadtests.harness.watch import DEPLOYMENTS, replicas, titled

_CONTROLLER = "ray::ServeController"
_POLL_S = 0.5
_WAIT_FOR_RECOVERY_S = 20.0
_NODE_AWAY_S = 4.0
_QUIET_S = 5.0
_TAIL_S = 15.0
_STALE_S = 4.0
_GIVEN_UP_S = 12.0


class Target(StrEnum):
    """What a kill hits; a replica's kind is the name of its deployment in small letters."""

    RECOGNIZER = "recognizer"
    SEGMENTER = "segmenter"
    PUNCTUATOR = "punctuator"
    INGRESS = "ingress"
    CONTROLLER = "controller"
    NODE = "node"


# How often each is hit in every two dozen kills.
_SHARES = {
    Target.RECOGNIZER: 6,
    Target.SEGMENTER: 6,
    Target.PUNCTUATOR: 4,
    Target.INGRESS: 3,
    Target.CONTROLLER: 3,
    Target.NODE: 2,
}


@dataclass(frozen=True, slots=True)
class Kill:
    """A kill that is due so long after the start of the load."""

    at_s: float
    target: Target


@dataclass(frozen=True, slots=True)
class Death:
    """A kill that was carried out.

    Attributes:
        target: what was hit.
        pid: of the process; of the raylet for a node.
        at_s: on the monotonic clock.
        whole: whether what it hit had recovered from the kills before.
    """

    target: Target
    pid: int
    at_s: float
    whole: bool


def plan_kills(number: int, duration_s: float, dice: random.Random) -> list[Kill]:
    """Returns kills in order of time, none in the first and last seconds of the load.

    Their times are evenly spread with a jitter; every kind of target is among them
    if there are at least as many kills as kinds.

    Raises:
        ValueError: there is no time for that many.
    """
    span_s = duration_s - _QUIET_S - _TAIL_S
    if number < 1 or span_s <= 0:
        raise ValueError("a kill needs a load that lasts longer than 20 s")
    rest = [target for target, share in _SHARES.items() for _ in range(share - 1)]
    targets = list(_SHARES)
    while len(targets) < number:
        dice.shuffle(rest)
        targets += rest
    targets = targets[:number]
    dice.shuffle(targets)
    step_s = span_s / number
    return [
        Kill(_QUIET_S + step_s * (position + 0.5 * dice.random()), target)
        for position, target in enumerate(targets)
    ]


def victims(app_name: str, target: Target) -> list[psutil.Process]:
    """Returns the processes of a kind among our own descendants, by their titles."""
    if target is Target.CONTROLLER:
        return titled(_CONTROLLER)
    return replicas(target.capitalize(), app_name)


class KillRunner:
    """Kills by a schedule.

    A kill waits, for a while, until what it hits has recovered from the kills before
    (all replicas of a kind; everything, before a node): with two replicas of each
    kind, two kills in quick succession would take away both, which is an outage of
    that stage and not the failure of a replica.

    Args:
        nodes: of the cluster.
        app_name: Serve's name of the application.
        dice: chooses among the processes of a kind.
        say: told of every kill.
    """

    def __init__(
        self, nodes: LocalNodes, app_name: str, dice: random.Random, say: Callable[[str], None]
    ) -> None:
        self._nodes = nodes
        self._app_name = app_name
        self._status = _StatusWatch(app_name)
        self._dice = dice
        self._say = say
        self.deaths: list[Death] = []

    async def carry_out(self, kills: Sequence[Kill], began_s: float) -> None:
        """Kills until the schedule ends or this is canceled."""
        try:
            for kill in kills:
                await asyncio.sleep(began_s + kill.at_s - time.monotonic())
                whole = await self._recovered(kill.target)
                pid = await asyncio.to_thread(self._hit, kill.target)
                now_s = time.monotonic()
                if pid is None:
                    self._say(f"{now_s - began_s:6.1f} s  no {kill.target} to kill")
                    continue
                self._say(f"{now_s - began_s:6.1f} s  killed a {kill.target} ({pid})")
                self.deaths.append(Death(kill.target, pid, now_s, whole))
                if kill.target is Target.NODE:
                    await asyncio.sleep(_NODE_AWAY_S)
                    await asyncio.to_thread(self._nodes.add)
        finally:
            self._status.stop()

    def _hit(self, target: Target) -> int | None:
        if target is Target.NODE:
            return self._nodes.kill(self._dice.randrange(self._nodes.num_workers))
        found = sorted(victims(self._app_name, target), key=lambda process: process.pid)
        if not found:
            return None
        victim = self._dice.choice(found)
        victim.send_signal(signal.SIGKILL)
        return victim.pid

    async def _recovered(self, target: Target) -> bool:
        """Waits for what is to be hit; returns whether all of it came back in time."""
        for _ in range(round(_WAIT_FOR_RECOVERY_S / _POLL_S)):
            if self._all_running(target):
                return True
            await asyncio.sleep(_POLL_S)
        return False

    def _all_running(self, target: Target) -> bool:
        num_healthy = self._status.num_healthy()
        if num_healthy is None or not set(DEPLOYMENTS) <= set(num_healthy):
            return False
        if target is Target.CONTROLLER:
            return True  # it has answered
        one = target.capitalize()
        # Serve learns of a death only from its next look at the replica, so that its
        # word alone does not count.
        return all(
            len(replicas(name, self._app_name)) == num_healthy[name]
            for name in ([one] if one in DEPLOYMENTS else DEPLOYMENTS)
        )


class _StatusWatch:
    """Asks Serve in a thread of its own, since a controller that is gone may never answer."""

    def __init__(self, app_name: str) -> None:
        self._app_name = app_name
        self._generation = 0
        self._answered_s = 0.0
        self._asked_s = 0.0
        self._num_healthy: dict[str, int | None] = {}

    def num_healthy(self) -> Mapping[str, int | None] | None:
        """Returns the number of replicas of each deployment, None for one that is not healthy.

        None while there is no fresh answer.
        """
        now_s = time.monotonic()
        if now_s - max(self._answered_s, self._asked_s) > _GIVEN_UP_S:
            self._asked_s = now_s
            self._generation += 1
            threading.Thread(target=self._watch, args=(self._generation,), daemon=True).start()
        return self._num_healthy if now_s - self._answered_s <= _STALE_S else None

    def stop(self) -> None:
        """Lets the threads end as soon as they are answered."""
        self._generation += 1

    def _watch(self, generation: int) -> None:
        from ray import serve

        while self._generation == generation:
            try:
                deployments = serve.status().applications[self._app_name].deployments
            except Exception:  # whatever it is, there is no answer
                time.sleep(_POLL_S)
                continue
            if self._generation == generation:
                self._num_healthy = {
                    name: sum(one.replica_states.values()) if one.status == "HEALTHY" else None
                    for name, one in deployments.items()
                }
                self._answered_s = time.monotonic()
            time.sleep(_POLL_S)
