"""Errors of the client."""

from __future__ import annotations

import math

import httpx

UNREACHABLE = "unreachable"
NOT_THE_API = "not_the_api"
_WORTH_TRYING_AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504})
_FINAL_CODES = frozenset(
    {
        "idempotency_conflict",
        "job_not_finished",
        "job_without_result",
        "no_webhook",
        "quota_exceeded",
        "upload_conflict",
        "upload_incomplete",
    }
)
"""Of statuses worth trying again, but the same call will not be answered otherwise."""

_SHOULD_RETRY = {"true": True, "false": False}
"""Values of the header that OpenAI's clients obey before they look at the status."""


class ClientError(Exception):
    """A call was not answered as asked.

    Attributes:
        status: of HTTP; 0 if there was no answer.
        code: the service's error code, `unreachable`, or `not_the_api` where something else
            answers.
        message: what to tell a person, in English.
        retry_after_s: when to try again, in whole s, if the service said so.
        should_retry: whether to try again, if the service said so.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        retry_after_s: int | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(status, code, message, retry_after_s, should_retry)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s
        self.should_retry = should_retry

    def __str__(self) -> str:
        return self.message

    @property
    def may_succeed_later(self) -> bool:
        """Whether the same call may be answered if it is made again."""
        if self.should_retry is not None:
            return self.should_retry
        if self.code in _FINAL_CODES:
            return False
        return self.code == UNREACHABLE or self.status in _WORTH_TRYING_AGAIN


class ServiceRefusal(ClientError):
    """The service answered with an error."""


class ServiceUnreachable(ClientError):
    """There was no answer, or it broke off; the message names the address."""


def refusal_of(response: httpx.Response) -> ServiceRefusal:
    """Returns the error of an answer that is one; its body has been read."""
    try:
        error = response.json()["error"]
        message = str(error["message"])
        code = str(error.get("code") or f"http_{response.status_code}")
    except (AttributeError, KeyError, TypeError, ValueError):
        code = f"http_{response.status_code}"
        message = f"HTTP status {response.status_code} {response.reason_phrase}".strip()
    return ServiceRefusal(
        response.status_code,
        code,
        message,
        _seconds(response.headers.get("Retry-After")),
        _SHOULD_RETRY.get(response.headers.get("X-Should-Retry", "").strip().lower()),
    )


def not_the_api(url: str) -> ServiceUnreachable:
    """Returns the error of a server that answers with something else."""
    return ServiceUnreachable(0, NOT_THE_API, f"the server at {url} is not Paraserve")


def unreachable(error: httpx.HTTPError, url: str) -> ServiceUnreachable:
    """Returns what a broken connection is for the caller."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        message = f"no service answers at {url}"
    elif isinstance(error, httpx.TimeoutException):
        message = f"{url} did not answer in time"
    else:
        message = f"the connection to {url} was lost: {str(error) or type(error).__name__}"
    return ServiceUnreachable(0, UNREACHABLE, message)


def _seconds(header: str | None) -> int | None:
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return math.ceil(seconds) if math.isfinite(seconds) and seconds >= 0 else None
