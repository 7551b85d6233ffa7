"""Which processes are found and hit."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import cast

import pytest

from loadtests.chaos.kills import Kill, KillRunner, Target, victims
from loadtests.harness.nodes import LocalNodes

_CODE = "print('up', flush=True); input()"


@contextmanager
def titled(title: str) -> Iterator[subprocess.Popen[bytes]]:
    """A child that calls itself so, as Ray's workers do."""
    with subprocess.Popen(
        [title, "-c", _CODE],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.fixture
def replicas() -> Iterator[dict[str, int]]:
    titles = (
        "ray::ServeReplica:ours:Recognizer",
        "ray::ServeReplica:ours:Recognizer.transcribe",
        "ray::ServeReplica:ours:Segmenter",
        "ray::ServeReplica:theirs:Recognizer",
        "ray::ServeController.listen_for_change",
    )
    with ExitStack() as stack:
        yield {title: stack.enter_context(titled(title)).pid for title in titles}


def test_replicas_are_found_whatever_they_do(replicas: dict[str, int]) -> None:
    found = {process.pid for process in victims("ours", Target.RECOGNIZER)}
    assert found == set(list(replicas.values())[:2])


def test_controller_is_found(replicas: dict[str, int]) -> None:
    (found,) = victims("ours", Target.CONTROLLER)
    assert found.pid == replicas["ray::ServeController.listen_for_change"]


def test_nothing_is_found_where_nothing_runs() -> None:
    assert victims("ours", Target.INGRESS) == []


async def test_only_the_process_that_is_due_is_killed(
    replicas: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def recovered(self: KillRunner, target: Target) -> bool:
        return True

    monkeypatch.setattr(KillRunner, "_recovered", recovered)
    told: list[str] = []
    # No node is killed here.
    runner = KillRunner(cast(LocalNodes, None), "ours", random.Random(1), told.append)
    await runner.carry_out([Kill(0.0, Target.SEGMENTER), Kill(0.0, Target.PUNCTUATOR)], 0.0)
    (death,) = runner.deaths
    assert (death.target, death.pid) == (
        Target.SEGMENTER,
        replicas["ray::ServeReplica:ours:Segmenter"],
    )
    assert [line.split("s  ")[1].split(" (")[0] for line in told] == [
        "killed a segmenter",
        "no punctuator to kill",
    ]
