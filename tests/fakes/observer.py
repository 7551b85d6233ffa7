"""An observer of requests that remembers how they ended."""

from __future__ import annotations

from serve_app.api.request_log import NoObserver, RequestLog


class EndedRequests(NoObserver):
    """Keeps the log of each request that has ended, in order."""

    def __init__(self) -> None:
        self.logs: list[RequestLog] = []

    def ended(self, log: RequestLog) -> None:
        self.logs.append(log)
