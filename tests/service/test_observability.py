"""What the running service tells of itself: metrics, log lines, traces."""

from __future__ import annotations

import json

import httpx
import numpy as np
import pytest

from serve_app import metrics
from tests.otlp_receiver import ReceivedSpan, Receiver
from tests.service.requests import audio_file, post, read_audio, transcribe
from tests.service.watching import (
    log_directory,
    log_lines_of,
    scrape,
    value_of,
    wait_for_export,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.ray

# Appear with the first event of a kind that this test does not bring about, or not at all.
RARE = {
    metric.name
    for metric in (
        metrics.GPU_MEMORY,
        metrics.SHEDS,
        metrics.PARTIALS,
        metrics.RETRIES,
        metrics.EXPIRED,
        # This service takes no jobs; tests/service/test_jobs.py has one that does.
        metrics.JOBS,
        metrics.JOBS_QUEUED_AUDIO,
        metrics.JOBS_OLDEST,
        metrics.JOBS_ON_RUNNER,
    )
}
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER_SPAN = "b7ad6b7169203331"


def test_every_declared_metric_is_exported(client: httpx.Client, demo_flac: bytes) -> None:
    transcribe(client, demo_flac)
    post(client, b"no audio")
    late = client.post(
        "/v1/audio/transcriptions",
        data={"model": "whisper-1"},
        files={"file": ("a.flac", demo_flac)},
        headers={"X-Paraserve-Timeout-S": "0.02"},
    )
    assert late.status_code == 504
    declared = {f"ray_{name}" for name in metrics.METRICS if name not in RARE}

    def missing() -> set[str]:
        page = scrape()
        return {name for name in declared if f"# TYPE {name} " not in page}

    wait_until(lambda: not missing(), missing)


def test_metrics_count_finished_work(client: httpx.Client, demo_flac: bytes) -> None:
    wait_for_export(client)
    audio_s = len(read_audio(demo_flac)) / 16_000
    name = "paraserve_audio_done_seconds_total"
    before = value_of(name)
    for _ in range(2):
        transcribe(client, demo_flac)
    wait_until(lambda: value_of(name) - before >= 2 * audio_s - 0.1)
    assert value_of(name) - before == pytest.approx(2 * audio_s, abs=0.1)


def test_a_request_leaves_one_line_with_its_times(client: httpx.Client, demo_flac: bytes) -> None:
    response = client.post(
        "/v1/audio/transcriptions",
        data={"model": "whisper-1"},
        files={"file": ("a.flac", demo_flac)},
        headers={"X-Request-ID": "log-test-1"},
    )
    wait_until(lambda: bool(log_lines_of("log-test-1")))
    (line,) = log_lines_of("log-test-1")
    assert line["status"] == response.status_code == 200
    assert line["key"] == "anonymous"
    assert line["audio_s"] == pytest.approx(len(read_audio(demo_flac)) / 16_000, abs=0.01)
    assert line["num_chunks"] > 0
    assert line["partial"] is False
    assert line["num_retries"] == 0
    for field in ("decode_s", "recognize_s", "punctuate_s"):
        assert 0 < line[field] < 100
    assert line["waited_s"] >= 0


def test_no_text_is_logged_by_any_process(client: httpx.Client, demo_flac: bytes) -> None:
    text = transcribe(client, demo_flac)["text"]
    post(client, audio_file(np.zeros(100, np.int16)))
    pieces = [text[start : start + 6] for start in range(0, len(text) - 6, 6)]
    for path in log_directory().glob("*"):
        if path.is_file():
            content = path.read_text(encoding="utf-8", errors="replace")
            escaped = content.encode("ascii", "replace")
            assert not any(piece in content for piece in pieces), path
            assert not any(json.dumps(p)[1:-1].encode() in escaped for p in pieces), path


def test_one_trace_runs_through_the_four_stages(
    client: httpx.Client, span_receiver: Receiver, demo_flac: bytes
) -> None:
    response = client.post(
        "/v1/audio/transcriptions",
        data={"model": "whisper-1"},
        files={"file": ("a.flac", demo_flac)},
        headers={"traceparent": f"00-{TRACE}-{CALLER_SPAN}-01"},
    )
    text = response.json()["text"]

    def spans() -> dict[str, ReceivedSpan]:
        return {span.name: span for span in span_receiver.spans if span.trace_id == TRACE}

    stages = {"ingress", "segmenter", "recognizer", "punctuator"}
    wait_until(lambda: set(spans()) == stages, lambda: set(spans()))
    found = spans()
    assert found["ingress"].parent_id == CALLER_SPAN
    assert found["segmenter"].parent_id == found["ingress"].span_id
    assert found["recognizer"].parent_id == found["segmenter"].span_id
    assert found["punctuator"].parent_id == found["ingress"].span_id
    assert text[:6] not in str(span_receiver.spans)
