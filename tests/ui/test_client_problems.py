from __future__ import annotations

import pytest

from serve_app.api.errors import STATUS_OF
from serve_app.client import ClientError
from serve_app.ui.client import problem_of


@pytest.mark.parametrize(
    ("status", "code", "problem"),
    [
        (401, "invalid_api_key", "key_missing"),
        (413, "upload_too_large", "too_large"),
        (413, "audio_too_long", "too_long"),
        (400, "audio_too_short", "too_short"),
        (400, "unknown_audio_format", "not_audio"),
        (400, "truncated_audio", "damaged"),
        (429, "overloaded", "busy"),
        (504, "deadline_exceeded", "too_late"),
        (502, "http_502", "failed"),
        (400, "invalid_parameter", "refused"),
    ],
)
def test_refusal_has_its_problem(status: int, code: str, problem: str) -> None:
    assert problem_of(ClientError(status, code, ""), with_key=False) == problem


def test_unknown_key_is_not_a_missing_one() -> None:
    assert problem_of(ClientError(401, "invalid_api_key", ""), with_key=True) == "key_refused"


def test_no_audio_error_is_reported_as_a_failure_of_the_service() -> None:
    for error, status in STATUS_OF.items():
        if status < 500:
            told = problem_of(ClientError(status, error.code, ""), with_key=False)
            assert told not in ("failed", "not_ready", "unreachable"), error
