"""Repeats a call when its replica is lost.

All calls between the stages are idempotent: the same input gives the same result on
any replica.
"""

from __future__ import annotations

import asyncio
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
from serve_app.core.records import RequestContext, Stage
from serve_app.deployments.metrics import count_retry
from serve_app.deployments.options import LOGGER
from serve_app.scheduling.backoff import Backoff
from serve_app.scheduling.micro_batcher import BatcherClosed, EngineStuck

ResultT = TypeVar("ResultT")

FailureKind: TypeAlias = Literal["died", "unreachable", "timeout", "full"]
"""Why a call has no answer: its replica died with it ("died"), none was reached that works
("unreachable"), it did not answer in time ("timeout"), or it takes no more ("full")."""

_BACKOFF = Backoff(first_s=0.5, longest_s=10.0)
_DIED = (RayActorError, WorkerCrashedError, NodeDiedError, LocalRayletDiedError)
_UNREACHABLE = (ReplicaUnavailableError, DeploymentUnavailableError, ObjectLostError, RpcError)


REPLACEMENT_S = 300.0
"""Longest wait for a live replica, unless the settings say otherwise."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
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
        retry_policy: how long to go on.
        clock: in seconds, monotonic.
    """

    def __init__(
        self, retry_policy: RetryPolicy, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._retry_policy = retry_policy
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

    def add(self, error: BaseException, failure_kind: FailureKind) -> None:
        """Takes in a lost call."""
        if failure_kind == "full":
            self._unreachable_since_s = None
            return
        self.num_in_a_row += 1
        if failure_kind == "unreachable" and not isinstance(error, DeploymentUnavailableError):
            if self._unreachable_since_s is None:
                self._unreachable_since_s = self._clock()
        else:
            self._unreachable_since_s = None
            self.num_counted += 1

    @property
    def too_many(self) -> bool:
        """True once as many replicas were lost as may be."""
        return self.num_counted >= self._retry_policy.max_attempts

    @property
    def too_long(self) -> bool:
        """True once no live replica was found for as long as may be."""
        since_s = self._unreachable_since_s
        return since_s is not None and self._clock() - since_s >= self._retry_policy.replacement_s


class ReplicaDied(Exception):
    """The replica that had the call died with it."""


def failure_kind_of(error: BaseException) -> FailureKind | None:
    """Returns why there is no answer; None if the error is one."""
    if isinstance(error, RayTaskError):
        # What the callee raised; it may wrap what befell the callee's own calls.
        if isinstance(error.cause, EngineStuck):
            # It is about to be replaced, over what it was running and not over what waited.
            return "died" if error.cause.begun else "unreachable"
        lost = isinstance(error.cause, (BatcherClosed, *_DIED, *_UNREACHABLE))
        return "unreachable" if lost else None
    if isinstance(error, _DIED):
        return "died"
    if isinstance(error, BackPressureError):
        return "full"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, asyncio.CancelledError):
        # Ray says so of a call that was canceled at the other end, too.
        task = asyncio.current_task()
        return "unreachable" if task is not None and not task.cancelling() else None
    return "unreachable" if isinstance(error, _UNREACHABLE) else None


async def call_until_answered(
    call: Callable[[], Awaitable[ResultT]],
    *,
    retry_policy: RetryPolicy,
    stage: Stage,
    context: RequestContext,
    retry_deaths: bool = True,
    clock: Callable[[], float] = time.monotonic,
) -> ResultT:
    """Returns the call's result, from whichever replica gives it.

    Args:
        call: makes the call anew each time.
        retry_policy: how often, and how long each.
        stage: who is called, for the log.
        context: whose request it is, for the log, and its deadline.
        retry_deaths: False to be told of a death instead.
        clock: in seconds, monotonic.

    Raises:
        DeadlineExceeded: the request's deadline passed meanwhile.
        ReplicaDied: the replica died, and `retry_deaths` is False.
        NotReady: the deployment failed to start, or no live replica was found in time.
        Exception: what the call itself raised, or the last failure.
    """
    losses = Losses(retry_policy, clock)
    while True:
        try:
            async with asyncio.timeout(wait_s(context, retry_policy.timeout_s)):
                return await call()
        except (Exception, asyncio.CancelledError) as error:
            failure_kind = failure_kind_of(error)
            if failure_kind is None:
                raise
            if failure_kind == "died" and not retry_deaths:
                raise ReplicaDied from error
            losses.add(error, failure_kind)
            if losses.too_long:
                raise NotReady(stage) from None
            if losses.too_many:
                raise_last(error, stage)
        await pause(losses.num_in_a_row, failure_kind, stage, context)


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


async def pause(
    num_lost: int, failure_kind: FailureKind, stage: Stage, context: RequestContext
) -> None:
    """Logs a lost call and waits, longer with each in a row, for a replica that answers.

    Raises:
        DeadlineExceeded: the request's deadline comes first.
    """
    delay_s = _BACKOFF.pause_s(num_lost)
    count_retry(stage, context)
    LOGGER.warning(
        "call lost, trying again",
        extra={
            "paraserve_request_id": context.request_id,
            "stage": stage,
            "failure_kind": failure_kind,
            "attempt": num_lost,
        },
    )
    await asyncio.sleep(min(delay_s, wait_s(context, None) or delay_s))
    wait_s(context, None)


def wait_s(context: RequestContext, timeout_s: float | None) -> float | None:
    """Returns how long an answer may be waited for, None for ever.

    Raises:
        DeadlineExceeded: not at all.
    """
    if context.deadline is None:
        return timeout_s
    left_s = context.deadline - time.time()
    if left_s <= 0:
        raise DeadlineExceeded(0.0)
    return left_s if timeout_s is None else min(left_s, timeout_s)
