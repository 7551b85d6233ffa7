"""Tells a replica's own code that Serve is stopping the replica.

Ray Serve 2.60 stops a replica without a word to its code: it waits for the running requests, at
most `graceful_shutdown_timeout_s`, and then ends the process. Requests that could last for hours
must be ended before that.
"""

from __future__ import annotations

import time
from typing import Any

from ray.serve._private import replica

_METHOD = "_perform_graceful_shutdown"


class _Stop:
    began_s: float | None = None


def stopping_since_s() -> float | None:
    """Returns the monotonic time at which Serve began to stop this replica; None before."""
    return _Stop.began_s


def watch_replica_stop() -> None:
    """Makes `stopping_since_s` work in this process; every further call does nothing.

    Raises:
        RuntimeError: Ray's replica has changed.
    """
    original = getattr(replica.Replica, _METHOD, None)
    if original is None:
        raise RuntimeError(f"Ray's replica no longer has {_METHOD}")
    if getattr(original, "is_watched", False):
        return

    async def watched(self: Any) -> None:
        _Stop.began_s = time.monotonic()
        await original(self)

    watched.is_watched = True  # type: ignore[attr-defined]  # marks our own function
    setattr(replica.Replica, _METHOD, watched)
