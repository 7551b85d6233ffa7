"""Whose work something is, wherever in the graph it happens to be."""

from __future__ import annotations

from dataclasses import dataclass

ANONYMOUS = "anonymous"
"""Name of the key of callers who need none."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Travels with every piece of a request's work, from the ingress to the models.

    Attributes:
        request_id: names the request in all logs.
        key: name of the caller's API key, never the key itself.
        deadline: Unix time in s after which the result is worthless, or None.
        weight: the key's share of a busy model, relative to other keys.
        traceparent: W3C trace context of the request's span, None when it is not traced.
        background: nobody waits for it: it has its turn only where nothing else wants one.
    """

    request_id: str
    key: str = ANONYMOUS
    deadline: float | None = None
    weight: float = 1.0
    traceparent: str | None = None
    background: bool = False

    def expired(self, unix_s: float) -> bool:
        return self.deadline is not None and unix_s >= self.deadline
