"""Waiting for a job: what both forms of the client do, apart from the calls themselves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TypeAlias

from serve_app.client.errors import ClientError, ServiceRefusal, not_the_api
from serve_app.client.job_records import Job, job_of
from serve_app.client.sending import pause_after

OnProgress: TypeAlias = Callable[[Job], None]

PATIENCE_S = 600.0
"""How long a service that has been reached before may be out of reach."""

_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.5, 15.0


class EventReader:
    """Reads server-sent events about a job, line by line.

    Source: WHATWG HTML, "Server-sent events".

    Args:
        url: of the service, for messages.

    Attributes:
        num_read: events so far.
    """

    def __init__(self, url: str) -> None:
        self.num_read = 0
        self._url = url
        self._data: list[str] = []
        self._event = ""

    def read(self, line: str) -> Job | None:
        """Returns the job if the line ends an event about it.

        Raises:
            ClientError: the event is an error, or nothing that the service would send.
        """
        if line:
            name, _, value = line.partition(":")
            if name == "data":
                self._data.append(value.removeprefix(" "))
            elif name == "event":
                self._event = value.strip()
            return None
        event, data, self._event, self._data = self._event, "\n".join(self._data), "", []
        if not data or event not in ("job", "error"):
            return None
        try:
            body = json.loads(data)
            if event == "job":
                self.num_read += 1
                return job_of(body)
            error = body["error"]
            refusal = ServiceRefusal(503, str(error["code"]), str(error["message"]))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise not_the_api(self._url) from None
        raise refusal


class JobWatch:
    """What is known of a job that is waited for, and how long to wait before asking again.

    Args:
        progress: called with the job at each change.
        timeout_s: longest time to wait; None for as long as it takes.
    """

    def __init__(self, progress: OnProgress | None, timeout_s: float | None) -> None:
        self._progress = progress
        self._began_s = self._answered_s = time.monotonic()
        self._timeout_s = timeout_s
        self._last: Job | None = None
        self._num_pauses = 0
        self._error: ClientError | None = None
        self.follows_events = True
        """Whether the service, and what is before it, lets events through."""

    def saw(self, job: Job) -> bool:
        """Notes an answer; returns whether the job has ended.

        Raises:
            TimeoutError: it has not, and the time is over.
        """
        self._answered_s = time.monotonic()
        self._error = None
        if job != self._last:
            self._last = job
            self._num_pauses = 0
            if self._progress is not None:
                self._progress(job)
        if not job.is_final:
            self.check_time()
        return job.is_final

    def lost_events(self, error: ClientError) -> None:
        """Notes that the events broke off; whether the job is there shows when it is asked for."""
        self.follows_events = error.may_succeed_later

    def missed(self, error: ClientError) -> None:
        """Notes that the service did not say how the job is.

        Raises:
            ClientError: it will not, or has been out of reach for too long.
            TimeoutError: the time is over.
        """
        # While a service starts, what is before it may know none of its paths.
        is_starting = self._last is not None and error.code == "http_404"
        if not error.may_succeed_later and not is_starting:
            raise error
        patience_s = PATIENCE_S if self._last is not None else PATIENCE_S / 10
        if time.monotonic() - self._answered_s > patience_s:
            raise error
        self._error = error
        self.check_time()

    def check_time(self) -> None:
        """Raises:
        TimeoutError: the time is over.
        """
        if self._left_s() <= 0:
            raise TimeoutError(f"the job has not ended within {self._timeout_s:g} s")

    def pause_s(self) -> float:
        """Returns how long to wait before asking again."""
        self._num_pauses += 1
        pause_s = min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(self._num_pauses - 1, 10))
        if self._error is not None and self._error.retry_after_s is not None:
            pause_s = pause_after(self._error, self._num_pauses)
        return max(0.0, min(pause_s, self._left_s()))

    def _left_s(self) -> float:
        if self._timeout_s is None:
            return float("inf")
        return self._timeout_s - (time.monotonic() - self._began_s)
