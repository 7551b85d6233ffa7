"""Headers made from data stay short and plain, whatever the data."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.api import headers as headers_module
from serve_app.api.headers import (
    MAX_HEADERS_BYTES,
    MAX_VALUE_CHARS,
    bounded_headers,
    list_header,
    text_header,
)
from serve_app.api.response_headers import EXPOSED_HEADERS
from serve_app.transcript.transcript import FailedRange
from tests.fakes.service import FakeService, sentence

URL = "/v1/audio/transcriptions"
ROOT = Path(headers_module.__file__).parents[1]


@given(st.text(max_size=5000))
def test_text_is_one_short_line_of_ascii(text: str) -> None:
    value = text_header(text)
    assert len(value) <= MAX_VALUE_CHARS
    assert re.fullmatch(r"[\x20-\x7e]*", value)


@given(st.lists(st.text(max_size=300), max_size=300))
def test_list_is_one_short_line_of_ascii(items: list[str]) -> None:
    value = list_header(items)
    assert len(value) <= MAX_VALUE_CHARS
    assert re.fullmatch(r"[\x20-\x7e]*", value)


def test_list_header_counts_the_items_left_out() -> None:
    assert list_header(["a", "b"]) == "a,b"
    items = [f"{n}-{n + 1}" for n in range(1000)]
    shown, _, more = list_header(items).rpartition(",")
    num_shown = len(shown.split(","))
    assert shown.split(",") == items[:num_shown]
    assert more == f"...(+{1000 - num_shown} more)"


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=50), st.binary(max_size=20_000)), max_size=40)
)
def test_whatever_headers_an_answer_has_they_fit_through_the_proxy(
    headers: list[tuple[bytes, bytes]],
) -> None:
    bounded = bounded_headers(headers)
    assert sum(len(name) + len(value) + 4 for name, value in bounded) <= MAX_HEADERS_BYTES
    assert not any(re.search(rb"[\r\n\x00]", value) for _, value in bounded)


@pytest.mark.parametrize("response_format", ["json", "text", "srt"])
async def test_thousands_of_failed_ranges_do_not_outgrow_the_header(
    client: httpx.AsyncClient, service: FakeService, response_format: str
) -> None:
    service.events = [
        sentence("你好", 0),
        *(FailedRange(n * 1000, n * 1000 + 500, "engine_error: x") for n in range(1, 5000)),
    ]
    answer = await client.post(
        URL,
        data={"model": "whisper-1", "response_format": response_format},
        files={"file": b"RIFF"},
    )
    assert answer.status_code == 200
    header = answer.headers["x-paraserve-partial"]
    assert header.startswith("1.0-1.5,2.0-2.5,")
    assert re.search(r",\.\.\.\(\+\d+ more\)$", header)
    assert sum(len(name) + len(value) for name, value in answer.headers.raw) < MAX_HEADERS_BYTES
    if response_format == "json":
        assert len(answer.json()["failed_ranges"]) == 4999


def test_every_header_of_ours_is_shown_to_scripts_of_other_origins() -> None:
    named = set()
    for path in ROOT.rglob("*.py"):
        named |= set(re.findall(r'"(X-Paraserve-[A-Za-z-]+)"', path.read_text(encoding="utf-8")))
    asked = {"X-Paraserve-Timeout-S"}
    assert named - asked <= set(EXPOSED_HEADERS)
