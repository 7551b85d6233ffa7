"""The whole graph over HTTP: what goes in as audio comes out as the engines' own text."""

from __future__ import annotations

import asyncio
import json
import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from typer.testing import CliRunner

from serve_app.cli.main import app
from serve_app.client import Paraserve, StreamSentence, TranscriptionRequest
from serve_app.inference.local import LocalTranscriber
from serve_app.settings import Settings
from serve_app.transcript.cer import character_error_rate
from serve_app.transcript.transcript import Transcript, collect
from tests.fakes.calls import demo_call, file_of
from tests.published import PUBLISHED_SEGMENTS_MS
from tests.service.requests import URL, audio_file, post, read_audio, transcribe

pytestmark = pytest.mark.ray


def transcribe_in_process(settings: Settings, content: bytes) -> Transcript:
    async def run() -> Transcript:
        async with LocalTranscriber(settings) as transcriber:
            audio = np.frombuffer(content, np.uint8)
            stages = frozenset(settings.stages)
            async with aclosing(transcriber.transcribe(audio, stages)) as events:
                return await collect(events)

    return asyncio.run(run())


def test_demo_recording_is_transcribed_right(
    client: httpx.Client, demo_flac: bytes, demo_text: str
) -> None:
    answer = transcribe(client, demo_flac, response_format="verbose_json")
    assert character_error_rate(demo_text, answer["text"]) <= 0.03
    assert "。" in answer["text"]
    starts = [segment["start"] for segment in answer["segments"]]
    assert starts == sorted(starts)


def test_text_and_times_equal_those_of_the_engines_alone(
    client: httpx.Client, settings: Settings, demo_flac: bytes
) -> None:
    answer = transcribe(
        client,
        demo_flac,
        response_format="verbose_json",
        **{"timestamp_granularities[]": ["word", "segment"]},
    )
    local = transcribe_in_process(settings, demo_flac)
    assert answer["text"] == local.text
    assert [(word["word"], word["start"], word["end"]) for word in answer["words"]] == [
        (token.text, token.start_ms / 1000, token.end_ms / 1000) for token in local.words()
    ]


def test_real_recording_has_the_published_segments_in_order(
    client: httpx.Client, vad_example: Path
) -> None:
    answer = transcribe(
        client,
        vad_example.read_bytes(),
        response_format="verbose_json",
        **{"include[]": "utterances"},
    )
    found = [
        [round(span["start"] * 1000), round(span["end"] * 1000)] for span in answer["utterances"]
    ]
    assert found == PUBLISHED_SEGMENTS_MS


def test_openai_client_transcribes(service_url: str, demo_flac: bytes) -> None:
    with openai.OpenAI(
        base_url=f"{service_url}/v1",
        api_key="unused",
        http_client=openai.DefaultHttpxClient(trust_env=False),
    ) as client:
        assert "paraformer-demo" in [model.id for model in client.models.list()]
        file = ("demo.flac", demo_flac)
        plain = client.audio.transcriptions.create(model="paraformer-demo", file=file)
        verbose = client.audio.transcriptions.create(
            model="paraformer-demo",
            file=file,
            language="zh",
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )
        assert verbose.text == plain.text
        assert verbose.segments
        assert verbose.words
        assert "".join(segment.text for segment in verbose.segments) == plain.text
        srt = client.audio.transcriptions.create(
            model="paraformer-demo", file=file, response_format="srt"
        )
        assert srt.startswith("1\n00:00:0")
        with pytest.raises(openai.BadRequestError) as refused:
            client.audio.transcriptions.create(
                model="paraformer-demo", file=("a.wav", audio_file(np.zeros(320, np.int16)))
            )
        assert refused.value.code == "audio_too_short"


def test_openai_client_streams_the_same_text(service_url: str, demo_flac: bytes) -> None:
    with openai.OpenAI(
        base_url=f"{service_url}/v1",
        api_key="unused",
        http_client=openai.DefaultHttpxClient(trust_env=False),
    ) as client:
        stream = client.audio.transcriptions.create(
            model="paraformer-demo", file=("demo.flac", demo_flac), stream=True
        )
        deltas, done = [], []
        for event in stream:
            if event.type == "transcript.text.delta":
                deltas.append(event.delta)
            elif event.type == "transcript.text.done":
                done.append(event.text)
        plain = client.audio.transcriptions.create(
            model="paraformer-demo", file=("demo.flac", demo_flac)
        )
    assert "".join(deltas) == done[0] == plain.text
    assert len(deltas) > 1


def test_text_streams_before_the_recording_is_through(
    client: httpx.Client, demo_flac: bytes
) -> None:
    long = audio_file(np.tile(read_audio(demo_flac), 8), kind="FLAC")
    data = {"model": "whisper-1", "stream": "true"}
    with client.stream("POST", URL, data=data, files={"file": ("a.flac", long)}) as response:
        events = [json.loads(line[6:]) for line in response.iter_lines() if line]
    # Told by order, not by the clock: the first delta is of the first seconds.
    assert events[0]["type"] == "transcript.text.delta"
    assert events[0]["end"] < 30
    assert events[-1]["type"] == "transcript.text.done"


def test_concurrent_clients_get_the_same_result_as_each_alone(
    client: httpx.Client, demo_flac: bytes
) -> None:
    pcm = read_audio(demo_flac)
    files = [audio_file(pcm[start * 16_000 : (start + 25) * 16_000]) for start in range(0, 40, 5)]
    alone = [transcribe(client, file)["text"] for file in files]
    with ThreadPoolExecutor(len(files)) as pool:
        together = list(pool.map(lambda file: transcribe(client, file)["text"], files))
    assert len(files) == 8
    assert together == alone


def test_long_recording_is_the_concatenation_of_its_parts(
    client: httpx.Client, demo_flac: bytes
) -> None:
    part = part_with_gap(demo_flac)
    once = transcribe(client, audio_file(part, kind="FLAC"))["text"]
    many = transcribe(client, audio_file(np.tile(part, 8), kind="FLAC"))["text"]
    assert many == once * 8


def part_with_gap(flac: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """The recording with a pause after it that ends a sentence in any case."""
    pcm = read_audio(flac)
    # A whole number of VAD blocks, so that every repetition meets the same frames.
    num_samples = -(-(len(pcm) + 5 * 16_000) // 40_960) * 40_960
    return np.concatenate([pcm, np.zeros(num_samples - len(pcm), np.int16)])


def test_stages_on_demand(client: httpx.Client, demo_flac: bytes) -> None:
    full = transcribe(client, demo_flac, stages="vad,asr,punctuation")["text"]
    no_punctuation = transcribe(client, demo_flac, stages="vad,asr")["text"]
    assert full != no_punctuation
    assert not set("，。？、") & set(no_punctuation)
    assert [c for c in full if c not in "，。？、"] == list(no_punctuation)
    no_vad = transcribe(client, demo_flac, stages="asr,punctuation")["text"]
    assert set("，。？、") & set(no_vad)
    assert character_error_rate(full, no_vad) < 0.2
    assert not set("，。？、") & set(transcribe(client, demo_flac, stages="asr")["text"])


def test_readiness_names_devices_packs_and_checksums(client: httpx.Client) -> None:
    stages = client.get("/readyz").json()["stages"]
    assert {name: stage["pack"] for name, stage in stages.items()} == {
        "vad": "fsmn-vad",
        "asr": "paraformer-demo",
        "punctuation": "ct-punc-demo",
    }
    assert all(len(stage["checksum"]) == 64 for stage in stages.values())


def test_request_id_is_given_back(client: httpx.Client, demo_flac: bytes) -> None:
    response = client.post(
        URL,
        data={"model": "whisper-1"},
        files={"file": ("a", demo_flac)},
        headers={"X-Request-ID": "abc-1"},
    )
    assert response.headers.get_list("x-request-id") == ["abc-1"]


def test_long_silence_is_an_empty_transcript(client: httpx.Client) -> None:
    silence = audio_file(np.zeros(2400 * 16_000, np.int16), kind="FLAC")
    answer = transcribe(client, silence)
    usage = {"type": "duration", "seconds": 2400}
    assert answer == {"text": "", "languages": [], "usage": usage}


def test_srt_of_silence_is_empty(client: httpx.Client) -> None:
    response = post(client, audio_file(np.zeros(32_000, np.int16)), response_format="srt")
    assert (response.status_code, response.text) == (200, "")


def test_command_line_transcribes_over_http(
    service_url: str, client: httpx.Client, demo_flac: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "demo.flac"
    file.write_bytes(demo_flac)
    arguments = ["transcribe", str(file), "--url", service_url, "--format", "srt"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    expected = post(client, demo_flac, response_format="srt").text
    assert result.stdout.strip() == expected.strip()


def test_request_finds_speech_in_its_own_way_and_changes_no_other(
    client: httpx.Client, demo_flac: bytes
) -> None:
    fields = {"response_format": "verbose_json", "include[]": "utterances"}

    def num_utterances(**more: str) -> int:
        return len(transcribe(client, demo_flac, **fields, **more)["utterances"])

    before = num_utterances()
    strategy = {"type": "server_vad", "silence_duration_ms": 100, "prefix_padding_ms": 0}
    assert num_utterances(chunking_strategy=json.dumps(strategy)) > before
    assert num_utterances(chunking_strategy="auto") == before


def test_names_and_keywords_of_openai_go_with_the_demo_model(
    client: httpx.Client, demo_flac: bytes
) -> None:
    fields: dict[str, str] = {"model": "gpt-transcribe-2026-01-01", "keywords[]": "阿里巴巴"}
    answer = post(client, demo_flac, **fields, **{"include[]": "logprobs", "seed": "1"})
    assert answer.status_code == 200, answer.text
    assert "no bias encoder" in answer.headers["x-paraserve-warnings"]
    assert answer.headers["x-paraserve-ignored-fields"] == "seed"
    body = answer.json()
    assert "".join(one["token"] for one in body["logprobs"]) == body["text"]
    refused = post(client, demo_flac, hotwords="阿里巴巴")
    assert refused.status_code == 400


@pytest.mark.parametrize("stream", [False, True])
def test_each_side_of_a_call_equals_its_own_transcript(
    client: httpx.Client, service_url: str, stream: bool
) -> None:
    call = demo_call(6)
    content = file_of(call).tobytes()
    alone = [transcribe(client, file_of(call[:, side]).tobytes()) for side in (0, 1)]
    if stream:
        with Paraserve(service_url) as paraserve:
            request = TranscriptionRequest(separate_channels=True)
            sides = [
                (event.channel, event.text.strip())
                for event in paraserve.stream(content, request)
                if isinstance(event, StreamSentence)
            ]
    else:
        fields = {"channels": "separate", "response_format": "verbose_json"}
        answer = transcribe(client, content, **fields)
        sides = [(segment["channel"], segment["text"]) for segment in answer["segments"]]
        starts = [segment["start"] for segment in answer["segments"]]
        assert starts == sorted(starts)
        assert answer["usage"]["seconds"] == math.ceil(2 * answer["duration"])
    for side in (0, 1):
        said = "".join(text for channel, text in sides if channel == side)
        assert said == alone[side]["text"]


def test_more_channels_than_the_limit_are_refused(client: httpx.Client) -> None:
    content = file_of(np.zeros((16_000, 3), np.int16)).tobytes()
    response = post(client, content, channels="separate")
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "unsupported_audio_layout"
    assert "at most 2 channels" in error["message"]
    assert transcribe(client, content)["text"] == ""
