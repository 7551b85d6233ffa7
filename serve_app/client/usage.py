"""What an API key has used in a calendar month."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any


@dataclass(frozen=True, slots=True)
class UsageOfKind:
    """What was used in one way: by request, job, batch job on the service, or live.

    Attributes:
        kind: request, job, batch or live.
        audio_s: seconds of audio, times the channels that were recognized.
        num_requests: requests, jobs, recordings of batch jobs, or live sessions.
    """

    kind: str
    audio_s: float
    num_requests: int


@dataclass(frozen=True, slots=True)
class MonthUsage:
    """What the caller's key has used in a calendar month in UTC.

    Attributes:
        month: as 2026-11.
        key: name of the key.
        audio_s: seconds of audio of all kinds.
        num_requests: of all kinds.
        kinds: what was used in each way.
        max_audio_s: quota of a month; None without one.
        until: the day on which the next month begins.
    """

    month: str
    key: str
    audio_s: float
    num_requests: int
    kinds: tuple[UsageOfKind, ...]
    max_audio_s: float | None
    until: date


def usage_of(body: Mapping[str, Any]) -> MonthUsage:
    """Reads the usage of a month.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it is something else.
    """
    quota_s = body.get("max_audio_s")
    return MonthUsage(
        month=str(body["month"]),
        key=str(body["key"]),
        audio_s=float(body["audio_s"]),
        num_requests=int(body["num_requests"]),
        kinds=tuple(
            UsageOfKind(str(one["kind"]), float(one["audio_s"]), int(one["num_requests"]))
            for one in body["data"]
        ),
        max_audio_s=None if quota_s is None else float(quota_s),
        until=date.fromisoformat(body["until"]),
    )
