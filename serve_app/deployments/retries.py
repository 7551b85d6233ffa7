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
"""Why a call has no answer: its replica died ("died"), no working replica was reached
("unreachable"), no answer came in time ("timeout"), or the stage accepts no more ("full")."""

_BACKOFF = Backoff(first_s=0.5, longest_s=10.0)
_DIED = (RayActorError, WorkerCrashedError, NodeDiedError, LocalRayletDiedError)
_UNREACHABLE = (ReplicaUnavailableError, DeploymentUnavailableError, ObjectLostError, RpcError)


REPLACEMENT_S = 300.0
"""Default of the longest wait for a live replica."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits of the retries of a call.

    Attributes:
        max_attempts: replicas, at least 1, that may die with the call or not answer it. A call
            that found a full stage, or no live replica, is not counted.
        timeout_s: longest wait for one answer, None for as long as the deadline allows.
        replacement_s: longest wait for a live replica, while calls find none.
    """

    max_attempts: int
    timeout_s: float | None = None
    replacement_s: float = REPLACEMENT_S


class Losses:
    """Counts one request's lost calls to a stage and decides whether to make another.

    A replica that is about to be replaced rejects every call at once, through no fault of the
    call: such losses are limited by the time that a replacement takes, not by their number.

    Args:
        retry_policy: limits of the retries.
        clock: in seconds, monotonic.
    """

    def __init__(
        self, retry_policy: RetryPolicy, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._retry_policy = retry_policy
        self._clock = clock
        self._unreachable_since_s: float | None = None
        self.num_counted = 0
        """Replicas that died with a call or did not answer it."""
        self.num_in_a_row = 0
        """Lost calls since the last progress of the request; decides the length of a pause."""

    def got_further(self) -> None:
        """Resets the counts after progress of the request."""
        self._unreachable_since_s = None
        self.num_counted = self.num_in_a_row = 0

    def add(self, error: BaseException, failure_kind: FailureKind) -> None:
        """Counts a lost call."""
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
        """True once the limit of lost replicas is reached."""
        return self.num_counted >= self._retry_policy.max_attempts

    @property
    def too_long(self) -> bool:
        """True once the longest wait for a live replica is over."""
        since_s = self._unreachable_since_s
        return since_s is not None and self._clock() - since_s >= self._retry_policy.replacement_s


class ReplicaDied(Exception):
    """The replica died while it ran the call."""


def failure_kind_of(error: BaseException) -> FailureKind | None:
    """Returns why there is no answer; None if the error itself is the answer."""
    if isinstance(error, RayTaskError):
        # Raised by the callee; it may wrap a failure of the callee's own calls.
        if isinstance(error.cause, EngineStuck):
            # It is about to be replaced because of the batch that it ran, not of queued calls.
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
        # Ray also raises it for a call that was canceled by the callee.
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
    """Returns the call's result and repeats the call if its replica is lost.

    Args:
        call: makes the call; called for each attempt.
        retry_policy: limits of the retries and of each attempt.
        stage: the callee, for the log.
        context: of the request, for the log and its deadline.
        retry_deaths: False to raise `ReplicaDied` instead of a retry.
        clock: in seconds, monotonic.

    Raises:
        DeadlineExceeded: the request's deadline passed.
        ReplicaDied: the replica died, and `retry_deaths` is False.
        NotReady: the deployment failed to start, or no live replica was found in time.
        Exception: the callee's error, or the last failure.
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
    """Raises the error for the caller after the last attempt.

    Raises:
        NotReady: the deployment failed to start.
        ConnectionError: the callee canceled the call.
        Exception: the error itself otherwise.
    """
    if isinstance(error, DeploymentUnavailableError):
        raise NotReady(stage) from None
    if isinstance(error, asyncio.CancelledError):
        raise ConnectionError(f"the {stage} stage dropped the call") from error
    raise error


async def pause(
    num_lost: int, failure_kind: FailureKind, stage: Stage, context: RequestContext
) -> None:
    """Logs a lost call and waits before the next one, longer after each consecutive loss.

    Raises:
        DeadlineExceeded: the request's deadline passed.
    """
    delay_s = _BACKOFF.pause_s(num_lost)
    count_retry(stage, context)
    LOGGER.warning(
        "call lost, retrying",
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
    """Returns the longest wait for an answer, None without a limit.

    Raises:
        DeadlineExceeded: the request's deadline has passed.
    """
    if context.deadline is None:
        return timeout_s
    left_s = context.deadline - time.time()
    if left_s <= 0:
        raise DeadlineExceeded(0.0)
    return left_s if timeout_s is None else min(left_s, timeout_s)
