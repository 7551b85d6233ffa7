"""How long a request may take."""

from __future__ import annotations

import asyncio

import pytest

from serve_app.api.admission import Deadline, deadline_of
from serve_app.core.errors import DeadlineExceeded, InvalidParameter


def test_header_wins_over_the_default() -> None:
    assert deadline_of(None, 60, 100).timeout_s == 60
    assert deadline_of("2.5", 60, 100).timeout_s == 2.5


@pytest.mark.parametrize("header", ["0", "-1", "101", "nan", "inf", "soon", ""])
def test_header_out_of_range_is_refused(header: str) -> None:
    with pytest.raises(InvalidParameter, match="at most 100"):
        deadline_of(header, 60, 100)


async def test_call_that_takes_longer_is_canceled() -> None:
    with pytest.raises(DeadlineExceeded):
        async with Deadline(0.01).enforced():
            await asyncio.Event().wait()


async def test_timeout_of_the_work_itself_is_not_the_deadline() -> None:
    with pytest.raises(TimeoutError):
        async with Deadline(60).enforced():
            raise TimeoutError
