"""Carries out a schedule of kills, on nothing but processes that this one has started."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from loadtests.chaos.nodes import LocalNodes
from loadtests.chaos.schedule import Kill, Target
from loadtests.chaos.status import StatusWatch
from loadtests.load.memory import own_processes

_DEPLOYMENT = {
    Target.RECOGNIZER: "Recognizer",
    Target.SEGMENTER: "Segmenter",
    Target.PUNCTUATOR: "Punctuator",
    Target.INGRESS: "Ingress",
}
_CONTROLLER = "ray::ServeController"
_POLL_S = 0.5
_WAIT_FOR_RECOVERY_S = 20.0
_NODE_AWAY_S = 4.0


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
        tell: told of every kill.
    """

    def __init__(
        self, nodes: LocalNodes, app_name: str, dice: random.Random, tell: Callable[[str], None]
    ) -> None:
        self._nodes = nodes
        self._app_name = app_name
        self._status = StatusWatch(app_name)
        self._dice = dice
        self._tell = tell
        self.deaths: list[Death] = []

    async def carry_out(self, kills: Sequence[Kill], began_s: float) -> None:
        """Kills until the schedule ends or this is canceled."""
        try:
            await self._carry_out(kills, began_s)
        except Exception as error:
            self._tell(f"no further kills: {type(error).__name__}: {error}")
            raise
        finally:
            self._status.stop()

    async def _carry_out(self, kills: Sequence[Kill], began_s: float) -> None:
        for kill in kills:
            await asyncio.sleep(began_s + kill.at_s - time.monotonic())
            whole = await self._recovered(kill.target)
            pid = await asyncio.to_thread(self._hit, kill.target)
            now_s = time.monotonic()
            if pid is None:
                self._tell(f"{now_s - began_s:6.1f} s  no {kill.target} to kill")
                continue
            self._tell(f"{now_s - began_s:6.1f} s  killed a {kill.target} ({pid})")
            self.deaths.append(Death(kill.target, pid, now_s, whole))
            if kill.target is Target.NODE:
                await asyncio.sleep(_NODE_AWAY_S)
                await asyncio.to_thread(self._nodes.add)

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
        states = self._status.states()
        if states is None or not set(_DEPLOYMENT.values()) <= set(states):
            return False
        if target is Target.CONTROLLER:
            return True  # it has answered
        kinds = [target] if target in _DEPLOYMENT else list(_DEPLOYMENT)
        # Serve learns of a death only from its next look at the replica, so that its
        # word alone does not count.
        return all(
            states[_DEPLOYMENT[kind]].healthy
            and len(victims(self._app_name, kind)) == states[_DEPLOYMENT[kind]].num_replicas
            for kind in kinds
        )


def victims(app_name: str, target: Target) -> list[psutil.Process]:
    """Returns the processes of a kind among our own descendants, by their titles."""
    title = _CONTROLLER
    if target is not Target.CONTROLLER:
        title = f"ray::ServeReplica:{app_name}:{_DEPLOYMENT[target]}"
    found = []
    for process in own_processes():
        try:
            if " ".join(process.cmdline()).startswith(title):
                found.append(process)
        except psutil.Error:
            continue  # it has just ended
    return found
