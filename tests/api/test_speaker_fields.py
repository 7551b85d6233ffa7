"""Requests for speaker labels: their fields, and the labels in each format."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from serve_app.api.headers import WARNINGS_HEADER
from serve_app.api.limits import ApiLimits
from serve_app.api.routes import build_api
from serve_app.core.records import RecordingEnd
from serve_app.core.speakers import Diarization, SpeakerOptions, SpeakerTurn
from tests.api.conftest import MAX_UPLOAD_BYTES
from tests.api.test_transcription import error_of, post
from tests.fakes.observer import EndedRequests
from tests.fakes.service import SPANS, FakeService, sentence
from tests.transcript.test_segmentation import wav

# The service says 你好。 until 400 ms and 再见。 from 1000 ms on.
TWO = Diarization((SpeakerTurn(0, 900, 0), SpeakerTurn(950, 1400, 1)), ("A", "B"))


def data_url(*stretches: tuple[float, int]) -> str:
    return "data:audio/wav;base64," + base64.b64encode(wav(*stretches).tobytes()).decode()


def known(*references: str, names: tuple[str, ...] = ("agent", "客户")) -> dict[str, Any]:
    return {"known_speaker_names[]": names, "known_speaker_references[]": references}


@pytest.fixture
def labelling(service: FakeService) -> FakeService:
    service.end = RecordingEnd(2000, SPANS, diarization=TWO)
    return service


def warned(response: httpx.Response) -> list[str]:
    return [one.split()[0] for one in json.loads(response.headers.get(WARNINGS_HEADER, "[]"))]


async def test_diarized_json_has_openais_shape(
    client: httpx.AsyncClient, labelling: FakeService
) -> None:
    response = await post(client, response_format="diarized_json")
    assert response.json() == {
        "task": "transcribe",
        "duration": 2.0,
        "text": "你好。再见。",
        "segments": [
            {
                "type": "transcript.text.segment",
                "id": "seg_001",
                "start": 0.0,
                "end": 0.4,
                "text": "你好。",
                "speaker": "A",
            },
            {
                "type": "transcript.text.segment",
                "id": "seg_002",
                "start": 1.0,
                "end": 1.4,
                "text": "再见。",
                "speaker": "B",
            },
        ],
        "usage": {"type": "duration", "seconds": 2},
        "languages": [{"code": "zh"}],
    }
    (job,) = labelling.jobs
    assert job.speakers == SpeakerOptions()
    assert "speakers" in job.stages


async def test_no_labels_are_made_for_a_request_that_does_not_ask(
    client: httpx.AsyncClient, labelling: FakeService
) -> None:
    labelling.end = RecordingEnd(2000, SPANS)
    response = await post(client, response_format="verbose_json")
    assert "speaker" not in response.text
    (job,) = labelling.jobs
    assert job.speakers is None
    assert "speakers" not in job.stages


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"speaker_labels": "true"}, SpeakerOptions()),
        ({"stages": "vad,asr,speakers"}, SpeakerOptions()),
        ({"num_speakers": "2"}, SpeakerOptions(num_speakers=2)),
        ({"min_speakers": "1", "max_speakers": "32"}, SpeakerOptions(None, 1, 32)),
        ({"max_speakers": "3", "speaker_labels": "on"}, SpeakerOptions(max_speakers=3)),
    ],
)
async def test_each_field_asks_for_labels(
    client: httpx.AsyncClient,
    labelling: FakeService,
    fields: dict[str, str],
    options: SpeakerOptions,
) -> None:
    granularities = {"timestamp_granularities[]": ["word", "segment"]}
    response = await post(
        client, fields={**fields, **granularities}, response_format="verbose_json"
    )
    body = response.json()
    assert [one["speaker"] for one in body["segments"]] == ["A", "B"]
    assert [one["speaker"] for one in body["words"]] == ["A", "A", "B", "B"]
    assert labelling.jobs[0].speakers == options
    assert warned(response) == []


async def test_sentence_is_divided_where_the_speaker_changes(
    client: httpx.AsyncClient, labelling: FakeService
) -> None:
    labelling.events = [sentence("你好吗再见了", 0)]
    turns = (SpeakerTurn(0, 600, 0), SpeakerTurn(600, 1200, 1))
    labelling.end = RecordingEnd(2000, SPANS, diarization=Diarization(turns, ("A", "B")))
    body = (await post(client, response_format="diarized_json")).json()
    assert [(one["speaker"], one["text"]) for one in body["segments"]] == [
        ("A", "你好吗"),
        ("B", "再见了。"),
    ]
    assert body["text"] == "你好吗再见了。"


async def test_known_speakers_are_decoded(
    client: httpx.AsyncClient, labelling: FakeService
) -> None:
    fields = known(data_url((2, 500)), data_url((0.5, 0), (1.5, 300)))
    response = await post(client, fields=fields, response_format="diarized_json")
    assert response.status_code == 200
    options = labelling.jobs[0].speakers
    assert options is not None
    assert [one.name for one in options.known] == ["agent", "客户"]
    assert [len(one.pcm) for one in options.known] == [32_000, 32_000]
    assert (options.known[0].pcm == 500).all()
    assert options.known[0].pcm.dtype == np.int16


async def test_known_speakers_may_come_as_json_lists(
    client: httpx.AsyncClient, labelling: FakeService
) -> None:
    fields = {
        "known_speaker_names": '["Doe, Jane"]',
        "known_speaker_references": json.dumps([data_url((2, 500))]),
    }
    await post(client, fields=fields, response_format="diarized_json")
    options = labelling.jobs[0].speakers
    assert options is not None
    assert [one.name for one in options.known] == ["Doe, Jane"]


SPEECH = data_url((2, 500))


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"num_speakers": "0"}, "num_speakers", "from 1 to 32"),
        ({"num_speakers": "33"}, "num_speakers", "from 1 to 32"),
        ({"num_speakers": "two"}, "num_speakers", "whole number"),
        ({"num_speakers": "2.5"}, "num_speakers", "whole number"),
        ({"max_speakers": "9" * 30}, "max_speakers", "from 1 to 32"),
        ({"max_speakers": ["2", "3"]}, "max_speakers", "given once"),
        ({"num_speakers": "2", "max_speakers": "3"}, "num_speakers", "cannot be combined"),
        ({"min_speakers": "3", "max_speakers": "2"}, "min_speakers", "larger than max_speakers"),
        ({"speaker_labels": "perhaps"}, "speaker_labels", "true or false"),
        ({"speaker_labels": "false", "num_speakers": "2"}, "speaker_labels", "num_speakers"),
        ({"speakers_labels": "true"}, "speakers_labels", "did you mean speaker_labels"),
        (known(SPEECH), "known_speaker_names", "2 names and 1 references"),
        (known(SPEECH, names=()), "known_speaker_references", "0 names and 1 references"),
        (known(*[SPEECH] * 5, names=tuple("abcde")), "known_speaker_names", "at most 4"),
        (known(SPEECH, SPEECH, names=("a", "a")), "known_speaker_names", "must differ"),
        (known(SPEECH, names=("a\nb",)), "known_speaker_names", "printable"),
        (known(SPEECH, names=("a" * 65,)), "known_speaker_names", "1 to 64"),
        (known(data_url((1.9, 500)), names=("a",)), "known_speaker_references", "2 to 10 s"),
        (known(data_url((0.01, 500)), names=("a",)), "known_speaker_references", "2 to 10 s"),
        (known(data_url((11, 500)), names=("a",)), "known_speaker_references", "2 to 10 s"),
        (known(data_url((3, 0)), names=("a",)), "known_speaker_references", "silent"),
        (known("voice.wav", names=("a",)), "known_speaker_references", "data URLs"),
        (known("data:audio/wav,abc", names=("a",)), "known_speaker_references", "data URLs"),
        (known("data:;base64,@@@", names=("a",)), "known_speaker_references", "base64"),
        (known("data:;base64,abcdabcd", names=("a",)), "known_speaker_references", "audio"),
        (known("data:;base64,", names=("a",)), "known_speaker_references", "audio"),
        (
            known("data:;base64," + "a" * 2**21, names=("a",)),
            "known_speaker_references[]",
            "is longer than 2097152 bytes",
        ),
    ],
)
async def test_mistakes_are_named(
    client: httpx.AsyncClient,
    labelling: FakeService,
    fields: dict[str, Any],
    param: str,
    said: str,
) -> None:
    response = await post(client, fields=fields, response_format="diarized_json")
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == param
    assert said in error["message"]
    assert labelling.jobs == []


@pytest.mark.parametrize(
    "fields",
    [
        {"speaker_labels": "true"},
        {"num_speakers": "2"},
        {"response_format": "diarized_json"},
        {"stages": "asr,speakers"},
        {"subtitle_speakers": "true", "response_format": "srt"},
        known(SPEECH, names=("a",)),
    ],
)
async def test_service_without_the_stage_says_which_setting_deploys_it(
    client: httpx.AsyncClient, service: FakeService, fields: dict[str, Any]
) -> None:
    service.stages = ("vad", "asr", "punctuation")
    response = await post(client, fields=fields)
    assert response.status_code == 400
    error = error_of(response)
    assert (error["code"], error["param"]) == ("stage_not_deployed", "stages")
    assert "'speakers'" in error["message"]
    assert "setting stages" in error["message"]


@pytest.mark.parametrize("response_format", ["json", "text"])
async def test_formats_without_labels_do_no_work_for_them(
    client: httpx.AsyncClient, labelling: FakeService, response_format: str
) -> None:
    plain = await post(client, response_format=response_format)
    response = await post(client, speaker_labels="true", response_format=response_format)
    assert response.text == plain.text
    assert warned(response) == ["speaker_labels"]
    assert labelling.jobs[-1].speakers is None


async def test_subtitles_name_the_speaker_if_asked(
    client: httpx.AsyncClient, labelling: FakeService
) -> None:
    asked = {"subtitle_speakers": "true"}
    srt = (await post(client, fields=asked, response_format="srt")).text
    assert [line for line in srt.splitlines() if "。" in line] == ["A: 你好。", "B: 再见。"]
    labelling.end = RecordingEnd(
        2000, SPANS, diarization=Diarization(TWO.turns, ("A & <B>", "客户"))
    )
    vtt = (await post(client, fields=asked, response_format="vtt")).text
    assert [line for line in vtt.splitlines() if "。" in line] == [
        "<v A &amp; &lt;B&gt;>你好。",
        "<v 客户>再见。",
    ]
    unnamed = (await post(client, speaker_labels="true", response_format="srt")).text
    assert [line for line in unnamed.splitlines() if "。" in line] == ["你好。", "再见。"]


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


async def test_stream_ends_with_the_labelled_segments(
    client: httpx.AsyncClient, labelling: FakeService
) -> None:
    response = await post(client, response_format="diarized_json", stream="true")
    events = events_of(response.text)
    assert [event["type"].rpartition(".")[2] for event in events] == [
        *("delta", "delta"),
        *("segment", "segment"),
        "done",
    ]
    whole = (await post(client, response_format="diarized_json")).json()
    assert events[2:4] == whole["segments"]
    assert events[-1]["text"] == whole["text"]


async def test_log_has_the_number_of_speakers_and_what_lacks_labels(
    service: FakeService, ended: EndedRequests, tmp_path: Path
) -> None:
    limits = ApiLimits(MAX_UPLOAD_BYTES, request_timeout_s=30, spool_dir=tmp_path)
    app = build_api(service, limits, logging.getLogger("tests.api"), observer=ended)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        await post(client)
        service.end = RecordingEnd(2000, SPANS, diarization=TWO)
        await post(client, response_format="diarized_json")
        service.end = RecordingEnd(2000, SPANS)
        await post(client, speaker_labels="true", response_format="verbose_json")
    assert [(log.num_speakers, log.lacks_labels) for log in ended.logs] == [
        (None, False),
        (2, False),
        (None, True),
    ]


async def test_diarized_json_without_labels_is_an_error_and_verbose_json_has_a_warning(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.end = RecordingEnd(2000, SPANS, notices=("There are no speaker labels.",))
    response = await post(client, response_format="diarized_json")
    assert response.status_code == 503
    assert error_of(response)["code"] == "speakers_unavailable"
    assert "Retry-After" in response.headers
    streamed = await post(client, response_format="diarized_json", stream="true")
    assert events_of(streamed.text)[-1]["error"]["code"] == "speakers_unavailable"
    body = (await post(client, speaker_labels="true", response_format="verbose_json")).json()
    assert body["warnings"] == ["There are no speaker labels."]
    assert "speaker" not in body["segments"][0]


async def test_sentence_without_a_label_is_of_an_unknown_speaker(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.end = RecordingEnd(2000, SPANS, diarization=Diarization())
    body = (await post(client, response_format="diarized_json")).json()
    assert {one["speaker"] for one in body["segments"]} == {"unknown"}


async def test_models_say_whether_there_are_labels(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    body = (await client.get("/v1/models")).json()
    assert body["data"][0]["speaker_labels"] is True
    service.stages = ("vad", "asr")
    body = (await client.get("/v1/models/paraformer-demo")).json()
    assert body["speaker_labels"] is False
