"""The one line of a request, and the headers that name it."""

from __future__ import annotations

import logging
import time

import pytest
from fastapi import Request

from serve_app.api.request_log import RequestLog, request_id_of, traceparent_of
from serve_app.core.records import RequestCost

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def request(**headers: str) -> Request:
    raw = [
        (name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()
    ]
    return Request({"type": "http", "headers": raw})


def test_well_formed_trace_context_is_taken() -> None:
    assert traceparent_of(request(traceparent=TRACEPARENT)) == TRACEPARENT


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        TRACEPARENT + "-more",
        TRACEPARENT.upper(),
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ],
)
def test_other_trace_context_is_dropped(header: str) -> None:
    assert traceparent_of(request(traceparent=header)) is None


def test_request_id_with_odd_characters_is_replaced() -> None:
    assert request_id_of(request(x_request_id="mine-1")) == "mine-1"
    assert request_id_of(request(x_request_id="a\nb")) != "a\nb"


def test_line_has_the_ids_and_the_time_of_each_stage(caplog: pytest.LogCaptureFixture) -> None:
    log = RequestLog("r-1", time.monotonic(), key="team", status=200, num_failed_ranges=1)
    log.model, log.language = "paraformer-small", "zh"
    log.cost = RequestCost(decode_s=0.1, recognize_s=0.2, punctuate_s=0.3, num_retries=4)
    with caplog.at_level(logging.INFO):
        log.write(logging.getLogger("tests.api"))
    (record,) = caplog.records
    line = vars(record)
    assert (line["paraserve_request_id"], line["key"], line["partial"]) == ("r-1", "team", True)
    assert (line["decode_s"], line["recognize_s"], line["punctuate_s"]) == (0.1, 0.2, 0.3)
    assert line["num_retries"] == 4
    assert (line["model"], line["language"]) == ("paraformer-small", "zh")
