"""Calls between the stages: what is tried again, how often, and what is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ObjectLostError,
    OwnerDiedError,
    WorkerCrashedError,
)
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)

from serve_app.core.errors import CorruptAudio, DeadlineExceeded, NotReady
from serve_app.core.records import RequestContext
from serve_app.deployments import retries
from serve_app.deployments.retries import (
    FailureKind,
    ReplicaDied,
    RetryPolicy,
    call_until_answered,
    failure_kind_of,
)
from serve_app.scheduling.backoff import Backoff
from serve_app.scheduling.micro_batcher import BatcherClosed, EngineStuck
from tests.fakes.handles import task_error

DIED = ActorDiedError()
FULL = BackPressureError(1, 1)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_BACKOFF", Backoff(0.0001, 0.0001))


def scripted(*outcomes: BaseException | str) -> tuple[Callable[[], Awaitable[str]], list[int]]:
    """Returns a call that comes to one outcome after the other, and where it counts."""
    left = iter(outcomes)
    calls: list[int] = []

    async def call() -> str:
        calls.append(1)
        outcome = next(left)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return call, calls


async def answer(
    call: Callable[[], Awaitable[str]],
    *,
    context: RequestContext | None = None,
    retry_policy: RetryPolicy | None = None,
    retry_deaths: bool = True,
) -> str:
    return await call_until_answered(
        call,
        retry_policy=retry_policy or RetryPolicy(3),
        stage="asr",
        context=context or RequestContext("request"),
        retry_deaths=retry_deaths,
    )


@pytest.mark.parametrize(
    ("error", "failure_kind"),
    [
        (DIED, "died"),
        (ActorUnavailableError("gone", None), "died"),
        (WorkerCrashedError(), "died"),
        (ObjectLostError("00" * 28, None, ""), "unreachable"),
        (OwnerDiedError("00" * 28, None, ""), "unreachable"),
        (DeploymentUnavailableError(DeploymentID("Recognizer")), "unreachable"),
        (ReplicaUnavailableError("r"), "unreachable"),
        (task_error(BatcherClosed()), "unreachable"),
        (task_error(EngineStuck("a batch")), "died"),
        (task_error(EngineStuck("a batch", begun=False)), "unreachable"),
        (FULL, "full"),
        (TimeoutError(), "timeout"),
        (task_error(CorruptAudio("x")), None),
        (task_error(TimeoutError()), None),
        (ValueError(), None),
    ],
)
def test_failures_are_distinguished_from_answers(
    error: Exception, failure_kind: FailureKind | None
) -> None:
    assert failure_kind_of(error) == failure_kind


async def test_lost_calls_are_made_again() -> None:
    call, calls = scripted(DIED, ObjectLostError("00" * 28, None, ""), "text")
    assert await answer(call) == "text"
    assert len(calls) == 3


async def test_last_failure_is_raised_after_the_last_attempt() -> None:
    call, calls = scripted(DIED, DIED, DIED, "too late")
    with pytest.raises(ActorDiedError):
        await answer(call)
    assert len(calls) == 3


async def test_error_response_is_not_retried() -> None:
    call, calls = scripted(ValueError("no"), "text")
    with pytest.raises(ValueError, match="no"):
        await answer(call)
    assert len(calls) == 1


async def test_unreachable_replica_does_not_count_as_an_attempt() -> None:
    call, calls = scripted(*[task_error(BatcherClosed())] * 30, "text")
    assert await answer(call) == "text"
    assert len(calls) == 31


async def test_wait_for_a_live_replica_is_bounded() -> None:
    now_s = 0.0

    def clock() -> float:
        nonlocal now_s
        now_s += 1.0
        return now_s

    call, calls = scripted(*[task_error(BatcherClosed())] * 100)
    with pytest.raises(NotReady):
        await call_until_answered(
            call,
            retry_policy=RetryPolicy(3, replacement_s=20.0),
            stage="punctuation",
            context=RequestContext("request"),
            clock=clock,
        )
    assert 10 <= len(calls) <= 20


async def test_full_stage_is_waited_for_beyond_the_attempts() -> None:
    call, calls = scripted(*[FULL] * 10, "text")
    assert await answer(call) == "text"
    assert len(calls) == 11


async def test_full_stage_is_waited_for_no_longer_than_the_deadline() -> None:
    call, _ = scripted(*[FULL] * 100_000)
    with pytest.raises(DeadlineExceeded):
        await answer(call, context=RequestContext("request", deadline=time.time() + 0.05))


async def test_call_that_is_not_answered_in_time_is_made_again() -> None:
    calls = 0

    async def call() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.Event().wait()
        return "text"

    assert await answer(call, retry_policy=RetryPolicy(3, timeout_s=0.01)) == "text"
    assert calls == 2


async def test_deadline_bounds_a_call_without_a_timeout() -> None:
    async def call() -> str:
        await asyncio.Event().wait()
        return "never"

    with pytest.raises(DeadlineExceeded):
        await answer(call, context=RequestContext("request", deadline=time.time() + 0.02))


async def test_deployment_that_failed_to_start_raises_not_ready() -> None:
    call, _ = scripted(*[DeploymentUnavailableError(DeploymentID("Recognizer"))] * 3)
    with pytest.raises(NotReady):
        await answer(call)


async def test_death_is_raised_at_once_if_it_must_not_be_retried() -> None:
    call, calls = scripted(FULL, DIED, "text")
    with pytest.raises(ReplicaDied):
        await answer(call, retry_deaths=False)
    assert len(calls) == 2


async def test_cancellation_at_the_other_end_is_not_the_callers() -> None:
    call, calls = scripted(asyncio.CancelledError(), "text")
    assert await answer(call) == "text"
    assert len(calls) == 2


async def test_cancellation_by_the_caller_ends_the_retries() -> None:
    began = asyncio.Event()

    async def call() -> str:
        began.set()
        await asyncio.Event().wait()
        return "never"

    task = asyncio.create_task(answer(call))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
