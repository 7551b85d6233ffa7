"""Kills a job's driver, one of its actors, or a node under it: only what we started."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass
from enum import StrEnum

import psutil

from loadtests.chaos.nodes import LocalNodes
from loadtests.load.memory import own_processes

_DRIVER = "serve_app.batch"
_ACTOR = "ray::MapWorker("


class Victim(StrEnum):
    """What is hit."""

    DRIVER = "driver"
    ACTOR = "actor"
    RAYLET = "raylet"


@dataclass(frozen=True, slots=True)
class Blow:
    """A kill that is to come.

    Attributes:
        victim: what is hit.
        at_share: share of the recordings that are done by then.
    """

    victim: Victim
    at_share: float


def plan_blows(dice: random.Random) -> list[Blow]:
    """Returns one of each kind, in random order, at random times."""
    victims = list(Victim)
    dice.shuffle(victims)
    width = 0.8 / len(victims)
    return [
        Blow(victim, 0.1 + width * (i + dice.uniform(0.2, 0.8))) for i, victim in enumerate(victims)
    ]


class Killer:
    """Carries blows out.

    Args:
        nodes: of the cluster.
        dice: chooses among the processes of a kind.
    """

    def __init__(self, nodes: LocalNodes, dice: random.Random) -> None:
        self._nodes = nodes
        self._dice = dice

    def strike(self, victim: Victim) -> str | None:
        """Kills; returns what was hit, None if there was nothing of the kind."""
        if victim is Victim.RAYLET:
            pid = self._nodes.kill(self._dice.randrange(self._nodes.num_workers))
            self._nodes.add()
            return f"raylet {pid} with all on its node"
        found = sorted(_processes(victim), key=lambda process: process.pid)
        if not found:
            return None
        process = self._dice.choice(found)
        name = " ".join(process.cmdline())[:60]
        process.send_signal(signal.SIGKILL)
        return f"{victim} {process.pid} ({name})"


def _processes(victim: Victim) -> list[psutil.Process]:
    found = []
    for process in own_processes():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if not command:
            continue
        if victim is Victim.ACTOR and command[0].startswith(_ACTOR):
            found.append(process)
        # Not the shell that Ray runs it in.
        if victim is Victim.DRIVER and command[1:3] == ["-m", _DRIVER]:
            found.append(process)
    return found
