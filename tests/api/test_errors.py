"""The error table is complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.api.errors import STATUS_OF, error_response
from serve_app.core.errors import (
    AudioError,
    AudioTooLong,
    ClusterError,
    ConfigurationError,
    Overloaded,
    ParaserveError,
    RequestError,
)
from tests.error_tree import EVERY_ERROR


@pytest.mark.parametrize("cls", EVERY_ERROR)
def test_every_error_has_a_status(cls: type[ParaserveError]) -> None:
    assert cls in STATUS_OF
    assert (400 <= STATUS_OF[cls] < 500) or not issubclass(cls, RequestError)


def test_overload_response_has_retry_after() -> None:
    response = error_response(Overloaded(6.2))
    assert response.status_code == 429
    assert response.headers["retry-after"] == "7"


# Classes that are never raised themselves, and those that no request meets.
ROOTS = {"ParaserveError", "RequestError", "AudioError", "ServiceError", "StartFailed"}
NOT_OF_REQUESTS = (ConfigurationError, ClusterError)
ERRORS_PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


@pytest.mark.parametrize("cls", [cls for cls in EVERY_ERROR if issubclass(cls, AudioError)])
def test_bad_audio_is_a_bad_request_unless_it_is_too_long(cls: type[ParaserveError]) -> None:
    assert STATUS_OF[cls] == (413 if cls is AudioTooLong else 400)


@pytest.mark.parametrize(
    "cls",
    [
        cls
        for cls in EVERY_ERROR
        if cls.__name__ not in ROOTS and not issubclass(cls, NOT_OF_REQUESTS)
    ],
)
def test_error_is_on_the_page_of_errors_with_its_status(cls: type[ParaserveError]) -> None:
    rows = [
        line
        for line in ERRORS_PAGE.read_text(encoding="utf-8").splitlines()
        if f"| {STATUS_OF[cls]} |" in line
    ]
    assert any(f"`{cls.code}`" in row for row in rows), f"{STATUS_OF[cls]} {cls.code}"
