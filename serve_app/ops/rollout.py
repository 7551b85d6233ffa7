"""The progress of a rollout."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from serve_app.core.errors import ClusterError
from serve_app.ops.service import ServiceState

# KubeRay may report Ready before it has processed the latest change.
_SETTLE_S = 6.0
_POLL_S = 2.0


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a rollout.

    Attributes:
        is_done: the specification is fully in effect and serves.
        failure: why it cannot complete; None if it may.
        told: a sentence that describes it.
    """

    is_done: bool
    failure: str | None
    told: str


def progress_of(state: ServiceState) -> Progress:
    """Returns the progress of the RayService's rollout."""
    target = state.pending or state.active
    if state.observed is not None and state.observed < state.generation:
        return Progress(False, None, "KubeRay has not processed the last change yet")
    if target is None:
        return Progress(False, None, "KubeRay has not created a cluster yet")
    context = f"cluster {target.name}"
    if target.failures:
        reason = "; ".join(target.failures)
        return Progress(False, reason, f"{context} failed: {reason}")
    if target.unready:
        workers = f"{target.ready_workers} of {target.desired_workers} workers"
        return Progress(False, None, f"{context} ({workers}) waits for {', '.join(target.unready)}")
    if state.pending is not None:
        return Progress(False, None, f"{context} is ready; traffic is moving to it")
    if not state.is_ready:
        ready = state.condition("Ready")
        reason = (ready.message or ready.reason) if ready else "no condition Ready yet"
        return Progress(False, None, f"{context} has no endpoint yet: {reason}")
    return Progress(True, None, f"{context} serves on {state.num_endpoints} pods")


def wait_for_rollout(
    read: Callable[[], ServiceState],
    on_progress: Callable[[str], None],
    timeout_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> str:
    """Waits until the rollout is complete and has been so for a few seconds.

    Args:
        read: returns the current state.
        on_progress: called with each new sentence.
        timeout_s: longest wait.
        clock: in s.
        pause: waits for a number of s.

    Returns:
        The last sentence.

    Raises:
        ClusterError: it failed, or did not complete in time.
        ClusterRefused: the API server refuses.
    """
    deadline = clock() + timeout_s
    done_since: float | None = None
    told = ""
    while True:
        progress = progress_of(read())
        if progress.told != told:
            told = progress.told
            on_progress(told)
        if progress.failure is not None:
            raise ClusterError(f"the rollout failed: {progress.failure}")
        now = clock()
        done_since = (done_since if done_since is not None else now) if progress.is_done else None
        if done_since is not None and now - done_since >= _SETTLE_S:
            return told
        if now >= deadline:
            raise ClusterError(f"not complete after {timeout_s:.0f} s: {told}")
        pause(_POLL_S)
