"""Streams through the proxy, and callers who leave."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import openai
import pytest

from tests.service.requests import URL, audio_file, read_audio
from tests.service.watching import log_lines_of, value_of, wait_for_export
from tests.waiting import wait_until

pytestmark = pytest.mark.ray


def request_lines_of(request_id: str) -> list[dict[str, Any]]:
    """Returns the lines that say how a request ended; other stages have lines of their own."""
    lines = log_lines_of(request_id)
    return [line for line in lines if line["message"] == "transcription request"]


def test_strict_client_takes_the_stream_and_its_usage(service_url: str, demo_flac: bytes) -> None:
    with openai.OpenAI(
        base_url=f"{service_url}/v1",
        api_key="unused",
        http_client=openai.DefaultHttpxClient(trust_env=False),
        _strict_response_validation=True,
    ) as client:
        create = client.audio.transcriptions.create
        file = ("demo.flac", demo_flac)
        *deltas, done = list(create(model="whisper-1", file=file, stream=True))
        plain = create(model="whisper-1", file=file)
    assert done.type == "transcript.text.done"
    assert done.text == plain.text
    assert done.usage is not None
    audio_s = len(read_audio(demo_flac)) / 16_000
    assert done.usage.input_tokens == pytest.approx(audio_s * 10, abs=1)
    assert done.usage.output_tokens > len(deltas)


def test_caller_who_leaves_a_stream_is_logged_and_not_counted_as_done(
    client: httpx.Client, demo_flac: bytes
) -> None:
    long = audio_file(np.tile(read_audio(demo_flac), 12), kind="FLAC")
    wait_for_export(client)
    done_before = value_of("paraserve_audio_done_seconds_total")
    with client.stream(
        "POST",
        URL,
        data={"model": "whisper-1", "stream": "true"},
        files={"file": ("a.flac", long)},
        headers={"X-Request-ID": "left-stream-1"},
    ) as response:
        assert response.status_code == 200
        first = next(line for line in response.iter_lines() if line.startswith("data: "))
        assert json.loads(first.removeprefix("data: "))["type"] == "transcript.text.delta"
    wait_until(lambda: bool(request_lines_of("left-stream-1")))
    (line,) = request_lines_of("left-stream-1")
    assert (line["code"], line["status"]) == ("client_disconnected", 499)
    wait_until(lambda: value_of("paraserve_requests_total", 'code="client_disconnected"') >= 1)
    # The work has stopped: no segmenter has the recording any more.
    wait_until(lambda: value_of("paraserve_recordings_open") == 0)
    wait_for_export(client)
    assert value_of("paraserve_audio_done_seconds_total") == done_before


def test_caller_who_leaves_during_the_upload_is_logged(service_url: str) -> None:
    address = urlsplit(service_url)
    assert address.hostname is not None
    assert address.port is not None
    head = (
        f"POST {URL} HTTP/1.1\r\nHost: {address.netloc}\r\nX-Request-ID: left-upload-1\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000000\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    )
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(head.encode() + bytes(100_000))
    wait_until(lambda: bool(request_lines_of("left-upload-1")))
    (line,) = request_lines_of("left-upload-1")
    assert (line["code"], line["status"]) == ("client_disconnected", 499)
