"""Requests for separate channels: their field, each format, and what they cost."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from serve_app.api.headers import PARTIAL_HEADER, WARNINGS_HEADER
from serve_app.api.limits import ApiLimits
from serve_app.api.routes import build_api
from serve_app.audio import AudioLimits
from serve_app.core.records import RecordingEnd, UtteranceSummary
from serve_app.scheduling.admission import AdmissionStatistics, Limits
from serve_app.transcript.transcript import FailedRange
from tests.api.test_admission import until
from tests.api.test_transcription import error_of, post
from tests.fakes.calls import file_of
from tests.fakes.observer import EndedRequests
from tests.fakes.service import FakeService, sentence

SEPARATE = {"channels": "separate"}
SPANS = (
    UtteranceSummary(0, 900, "done", channel=0),
    UtteranceSummary(300, 1400, "done", channel=1),
)


@pytest.fixture
def call(service: FakeService) -> FakeService:
    """A service that has heard a call."""
    service.events = [
        replace(sentence("你好", 0), channel=0),
        replace(sentence("再见", 300), channel=1),
        FailedRange(900, 1200, "engine_error: x", channel=1),
    ]
    service.end = RecordingEnd(1400, SPANS, num_channels=2)
    return service


def client_of(
    service: FakeService, directory: Path, observer: EndedRequests, **limits: Any
) -> httpx.AsyncClient:
    api_limits = ApiLimits(10**7, 30, directory, **limits)
    app = build_api(service, api_limits, logging.getLogger("tests.api"), observer=observer)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


class WatchingRequests(EndedRequests):
    """Keeps a way to look at the queue."""

    statistics: Any = None

    def watch(self, line: Any, keys_stale_s: Any) -> None:
        self.statistics = line


@pytest.mark.parametrize(
    ("sent", "separate"),
    [({}, False), ({"channels": "mix"}, False), (SEPARATE, True), ({"channels": "SEPARATE"}, True)],
)
async def test_channels_are_mixed_unless_they_are_asked_for(
    client: httpx.AsyncClient, service: FakeService, sent: dict[str, str], separate: bool
) -> None:
    assert (await post(client, fields=sent)).status_code == 200
    assert service.jobs[0].separate_channels is separate


async def test_another_value_is_refused(client: httpx.AsyncClient) -> None:
    response = await post(client, channels="2")
    assert response.status_code == 400
    assert error_of(response)["param"] == "channels"


async def test_verbose_json_names_the_channel_everywhere(
    client: httpx.AsyncClient, call: FakeService
) -> None:
    fields = {
        **SEPARATE,
        "response_format": "verbose_json",
        "timestamp_granularities[]": ["word", "segment"],
        "include[]": ["utterances", "logprobs"],
    }
    response = await post(client, fields=fields)
    body = response.json()
    assert [one["channel"] for one in body["segments"]] == [0, 1]
    assert [(one["word"], one["channel"]) for one in body["words"]] == [
        ("你", 0), ("好", 0), ("再", 1), ("见", 1),
    ]  # fmt: skip
    assert [one["channel"] for one in body["utterances"]] == [0, 1]
    (failed,) = body["failed_ranges"]
    assert failed["channel"] == 1
    assert response.headers[PARTIAL_HEADER] == "0.9-1.2;channel=1"
    assert body["text"] == "你好。\n再见。"
    assert "".join(one["token"] for one in body["logprobs"]) == body["text"]
    assert body["duration"] == 1.4
    assert body["usage"] == {"type": "duration", "seconds": 3}


async def test_text_json_and_subtitles_have_a_turn_a_line(
    client: httpx.AsyncClient, call: FakeService
) -> None:
    assert (await post(client, fields=SEPARATE)).json()["text"] == "你好。\n再见。"
    text = await post(client, fields=SEPARATE, response_format="text")
    assert text.text == "你好。\n再见。\n"
    srt = await post(client, fields=SEPARATE, response_format="srt")
    assert "Channel" not in srt.text
    named = {**SEPARATE, "subtitle_channels": "true"}
    srt = await post(client, fields=named, response_format="srt")
    assert "Channel 1: 你好。" in srt.text
    assert "Channel 2: 再见。" in srt.text
    vtt = await post(client, fields=named, response_format="vtt")
    assert "<v Channel 2>再见。" in vtt.text


@pytest.mark.parametrize(
    "fields", [{"response_format": "srt"}, {**SEPARATE, "response_format": "json"}]
)
async def test_subtitle_channels_without_effect_are_named(
    client: httpx.AsyncClient, fields: dict[str, str]
) -> None:
    response = await post(client, fields=fields, subtitle_channels="true")
    assert response.status_code == 200
    assert "subtitle_channels" in response.headers[WARNINGS_HEADER]


async def test_a_stream_names_the_channel_and_adds_up_to_the_text(
    client: httpx.AsyncClient, call: FakeService
) -> None:
    fields = {**SEPARATE, "timestamp_granularities[]": ["word"], "include[]": ["logprobs"]}
    response = await post(client, fields=fields, stream="true")
    *deltas, done = [
        json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")
    ]
    assert [one["channel"] for one in deltas] == [0, 1]
    assert [word["channel"] for one in deltas for word in one["words"]] == [0, 0, 1, 1]
    assert "".join(one["delta"] for one in deltas) == done["text"] == "你好。\n再见。"
    assert "".join(one["token"] for one in done["logprobs"]) == done["text"]
    assert done["duration"] == 1.4
    assert done["usage"]["input_tokens"] == 28
    assert done["failed_ranges"][0]["channel"] == 1


@pytest.mark.parametrize(
    ("container", "num_channels", "fields", "cost_s"),
    [
        ("FLAC", 2, SEPARATE, 120.0),
        ("WAV", 2, SEPARATE, 120.0),
        ("FLAC", 1, SEPARATE, 60.0),
        ("FLAC", 2, {}, 60.0),
        # More than are accepted; the decoder will refuse them.
        ("FLAC", 4, SEPARATE, 180.0),
        # Its header does not say how many there are, as far as the ingress reads it.
        ("MP3-like", 1, SEPARATE, 180.0),
    ],
)
async def test_each_separate_channel_costs_a_recording(
    call: FakeService,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    container: str,
    num_channels: int,
    fields: dict[str, str],
    cost_s: float,
) -> None:
    if container == "MP3-like":
        monkeypatch.setattr("serve_app.api.upload.declared_channels", lambda content: None)
        container = "FLAC"
    minute = file_of(np.zeros((60 * 16_000, num_channels), np.int16), container).tobytes()
    observer = WatchingRequests()
    call.until = asyncio.Event()
    limits = {"audio": AudioLimits(max_separate_channels=3), "max_audio_s": 3600.0}
    async with client_of(call, tmp_path, observer, **limits) as client:
        running = asyncio.create_task(post(client, minute, fields=fields))
        await until(lambda: bool(call.jobs))
        statistics: AdmissionStatistics = observer.statistics()
        assert statistics.in_flight_audio_s == pytest.approx(cost_s, abs=0.1)
        call.until.set()
        assert (await running).status_code == 200
    (log,) = observer.logs
    assert (log.audio_s, log.num_channels) == (1.4, 2)
    assert log.recognized_audio_s == 2.8


async def test_the_limit_of_length_is_by_time_and_a_call_over_the_audio_in_flight_is_admitted(
    call: FakeService, tmp_path: Path
) -> None:
    minute = file_of(np.zeros((60 * 16_000, 2), np.int16)).tobytes()
    limits = {"in_flight": Limits(max_running=9, max_waiting=9, max_audio_s=100.0)}
    async with client_of(call, tmp_path, EndedRequests(), **limits) as client:
        assert (await post(client, minute, fields=SEPARATE)).status_code == 200
