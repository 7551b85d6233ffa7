"""The error table is complete."""

from __future__ import annotations

import pytest

from serve_app.api.errors import STATUS_OF, error_response
from serve_app.core.errors import Overloaded, ParaserveError, RequestError
from tests.error_tree import EVERY_ERROR


@pytest.mark.parametrize("cls", EVERY_ERROR)
def test_every_error_has_a_status(cls: type[ParaserveError]) -> None:
    assert cls in STATUS_OF
    assert (400 <= STATUS_OF[cls] < 500) or not issubclass(cls, RequestError)


def test_overload_says_when_to_come_back() -> None:
    response = error_response(Overloaded(6.2))
    assert response.status_code == 429
    assert response.headers["retry-after"] == "7"
