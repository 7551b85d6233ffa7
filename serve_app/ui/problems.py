"""From what the API refuses to what the page says of it."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from fastapi.responses import JSONResponse

from serve_app.client import ClientError

Problem: TypeAlias = Literal[
    "key_missing",
    "key_refused",
    "model_unknown",
    "too_large",
    "too_long",
    "not_audio",
    "damaged",
    "too_short",
    "busy",
    "not_ready",
    "too_late",
    "unreachable",
    "refused",
    "failed",
    # The page's own.
    "page_busy",
    "upload_lost",
    "upload_failed",
    "interrupted",
    "page_unknown",
]
"""What went wrong; `texts` has the words."""

PROBLEMS: tuple[Problem, ...] = get_args(Problem)

_BY_CODE: dict[str, Problem] = {
    "audio_too_long": "too_long",
    "audio_too_short": "too_short",
    "unknown_audio_format": "not_audio",
    "corrupt_audio": "damaged",
    "truncated_audio": "damaged",
    "unsupported_audio_layout": "damaged",
    "invalid_samples": "damaged",
    "invalid_audio": "damaged",
    "unreachable": "unreachable",
    "not_the_api": "unreachable",
}
_BY_STATUS: dict[int, Problem] = {
    401: "key_missing",
    403: "key_refused",
    404: "model_unknown",
    413: "too_large",
    429: "busy",
    503: "not_ready",
    504: "too_late",
}
_FIRST_SERVER_ERROR = 500


def problem_of(refusal: ClientError, *, with_key: bool) -> Problem:
    """Returns what went wrong, in the page's terms.

    Args:
        refusal: by the API.
        with_key: True if a key was sent.
    """
    if refusal.code in _BY_CODE:
        return _BY_CODE[refusal.code]
    if refusal.status == 401 and with_key:
        return "key_refused"
    other: Problem = "failed" if refusal.status >= _FIRST_SERVER_ERROR else "refused"
    return _BY_STATUS.get(refusal.status, other)


def refusal_response(
    problem: Problem, status: int, detail: str = "", retry_after_s: int | None = None
) -> JSONResponse:
    """Returns how the page refuses a request.

    Args:
        problem: what went wrong.
        status: of HTTP.
        detail: in English, for whoever wants to know more.
        retry_after_s: when to try again, if that helps.
    """
    body = {"problem": problem, "detail": detail, "retry_after_s": retry_after_s}
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return JSONResponse(body, status, headers)
