"""Tries a call again when the replica that had it is lost.

All calls between the stages are idempotent: the same input gives the same result on
any replica.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RayTaskError,
    RpcError,
    WorkerCrashedError,
)
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)

from serve_app.core.errors import DeadlineExceeded, NotReady
from serve_app.core.records import Origin, Stage
from serve_app.deployments.metrics import count_retry
from serve_app.deployments.options import LOGGER
from serve_app.scheduling.micro_batcher import BatcherClosed, EngineStuck

ResultT = TypeVar("ResultT")

Trouble: TypeAlias = Literal["died", "away", "late", "full"]
"""Why a call has no answer: its replica died with it ("died"), none was reached that works
("away"), it did not answer in time ("late"), or it takes no more ("full")."""

_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 10.0
_MAX_DOUBLINGS = 16  # keeps the power small; the longest delay comes much earlier
_DIED = (RayActorError, WorkerCrashedError, NodeDiedError, LocalRayletDiedError)
_AWAY = (ReplicaUnavailableError, DeploymentUnavailableError, ObjectLostError, RpcError)


REPLACEMENT_S = 300.0
"""Longest wait for a live replica, unless the settings say otherwise."""


@dataclass(frozen=True, slots=True)
class Tries:
    """How long to go on.

    Attributes:
        max_attempts: replicas, at least 1, that may die with the call or leave it unanswered.
            A call that found a full stage, or no live replica, is not counted.
        timeout_s: longest wait for one answer, None for as long as the deadline allows.
        replacement_s: longest wait for a live replica, while calls find none.
    """

    max_attempts: int
    timeout_s: float | None = None
    replacement_s: float = REPLACEMENT_S


class Losses:
    """What one request's calls to a stage have come to, and whether to make another.

    A replica that is about to be replaced answers every call at once, and none of it is the
    call's fault: such losses are bounded by the time that a replacement takes, not by their
    number.

    Args:
        tries: how long to go on.
        clock: in seconds, monotonic.
    """

    def __init__(self, tries: Tries, clock: Callable[[], float] = time.monotonic) -> None:
        self._tries = tries
        self._clock = clock
        self._unreachable_since_s: float | None = None
        self.num_counted = 0
        """Replicas that died with a call or left it unanswered."""
        self.num_in_a_row = 0
        """Lost calls since the request last got further; for the length of a pause."""

    def got_further(self) -> None:
        """Forgets what was lost: a replica has just been seen to work on the request."""
        self._unreachable_since_s = None
        self.num_counted = self.num_in_a_row = 0

    def add(self, error: BaseException, trouble: Trouble) -> None:
        """Takes in a lost call."""
        if trouble == "full":
            self._unreachable_since_s = None
            return
        self.num_in_a_row += 1
        if trouble == "away" and not isinstance(error, DeploymentUnavailableError):
            if self._unreachable_since_s is None:
                self._unreachable_since_s = self._clock()
        else:
            self._unreachable_since_s = None
            self.num_counted += 1

    @property
    def too_many(self) -> bool:
        """True once as many replicas were lost as may be."""
        return self.num_counted >= self._tries.max_attempts

    @property
    def too_long(self) -> bool:
        """True once no live replica was found for as long as may be."""
        since_s = self._unreachable_since_s
        return since_s is not None and self._clock() - since_s >= self._tries.replacement_s


class ReplicaDied(Exception):
    """The replica that had the call died with it."""


def trouble_of(error: BaseException) -> Trouble | None:
    """Returns why there is no answer; None if the error is one."""
    if isinstance(error, RayTaskError):
        # What the callee raised; it may wrap what befell the callee's own calls.
        if isinstance(error.cause, EngineStuck):
            # It is about to be replaced, over what it was running and not over what waited.
            return "died" if error.cause.begun else "away"
        lost = isinstance(error.cause, (BatcherClosed, *_DIED, *_AWAY))
        return "away" if lost else None
    if isinstance(error, _DIED):
        return "died"
    if isinstance(error, BackPressureError):
        return "full"
    if isinstance(error, TimeoutError):
        return "late"
    if isinstance(error, asyncio.CancelledError):
        # Ray says so of a call that was cancelled at the other end, too.
        task = asyncio.current_task()
        return "away" if task is not None and not task.cancelling() else None
    return "away" if isinstance(error, _AWAY) else None


async def call_until_answered(
    call: Callable[[], Awaitable[ResultT]],
    *,
    tries: Tries,
    stage: Stage,
    origin: Origin,
    retry_deaths: bool = True,
    clock: Callable[[], float] = time.monotonic,
) -> ResultT:
    """Returns the call's result, from whichever replica gives it.

    Args:
        call: makes the call anew each time.
        tries: how often, and how long each.
        stage: who is called, for the log.
        origin: whose request it is, for the log, and its deadline.
        retry_deaths: False to be told of a death instead.
        clock: in seconds, monotonic.

    Raises:
        DeadlineExceeded: the request's deadline passed meanwhile.
        ReplicaDied: the replica died, and `retry_deaths` is False.
        NotReady: the deployment failed to start, or no live replica was found in time.
        Exception: what the call itself raised, or the last trouble.
    """
    losses = Losses(tries, clock)
    while True:
        try:
            async with asyncio.timeout(wait_s(origin, tries.timeout_s)):
                return await call()
        except (Exception, asyncio.CancelledError) as error:
            trouble = trouble_of(error)
            if trouble is None:
                raise
            if trouble == "died" and not retry_deaths:
                raise ReplicaDied from error
            losses.add(error, trouble)
            if losses.too_long:
                raise NotReady(stage) from None
            if losses.too_many:
                raise_last(error, stage)
        await pause(losses.num_in_a_row, trouble, stage, origin)


def raise_last(error: BaseException, stage: Stage) -> None:
    """Raises what a caller is told after the last attempt.

    Raises:
        NotReady: the deployment failed to start.
        Exception: the error itself otherwise; never a cancellation that nobody asked for.
    """
    if isinstance(error, DeploymentUnavailableError):
        raise NotReady(stage) from None
    if isinstance(error, asyncio.CancelledError):
        raise ConnectionError(f"the {stage} stage dropped the call") from error
    raise error


async def pause(num_lost: int, trouble: Trouble, stage: Stage, origin: Origin) -> None:
    """Logs a lost call and waits, longer with each in a row, for a replica that answers.

    Half of the wait is random, so that the calls that a replica took with it do not
    come back all at once.

    Raises:
        DeadlineExceeded: the request's deadline comes first.
    """
    delay_s = min(
        _FIRST_DELAY_S * 2.0 ** min(max(num_lost - 1, 0), _MAX_DOUBLINGS), _LONGEST_DELAY_S
    )
    delay_s *= random.uniform(0.5, 1.0)  # noqa: S311 - no secret
    count_retry(stage, origin)
    LOGGER.warning(
        "call lost, trying again",
        extra={
            "paraserve_request_id": origin.request_id,
            "stage": stage,
            "trouble": trouble,
            "attempt": num_lost,
        },
    )
    await asyncio.sleep(min(delay_s, wait_s(origin, None) or delay_s))
    wait_s(origin, None)


def wait_s(origin: Origin, timeout_s: float | None) -> float | None:
    """Returns how long an answer may be waited for, None for ever.

    Raises:
        DeadlineExceeded: not at all.
    """
    if origin.deadline is None:
        return timeout_s
    left_s = origin.deadline - time.time()
    if left_s <= 0:
        raise DeadlineExceeded(0.0)
    return left_s if timeout_s is None else min(left_s, timeout_s)
