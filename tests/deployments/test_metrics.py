"""What the helpers make of what they are told."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

import httpx
import pytest

from serve_app import metrics
from serve_app.api.errors import STATUS_OF
from serve_app.api.limits import ApiLimits
from serve_app.api.request_log import RequestLog
from serve_app.api.routes import build_api
from serve_app.core.records import STAGES, RequestContext, StageReadiness
from serve_app.deployments.metrics import (
    IngressMetrics,
    ModelCacheMetrics,
    ModelMetrics,
    Sampler,
    SegmenterMetrics,
    count_retry,
    take_retries,
)
from serve_app.inference.model_cache import ModelCacheStatistics
from serve_app.metrics import METRICS
from serve_app.scheduling.admission import NO_LIMITS, AdmissionLine, Limits
from serve_app.scheduling.autoscaling import Backlog
from serve_app.scheduling.batch_state import BatcherStatistics
from tests.deployments.conftest import Recorded
from tests.error_tree import EVERY_ERROR
from tests.fakes.service import FakeService

READINESS = StageReadiness("asr", "cpu", "paraformer-demo", "abc")
STATISTICS = BatcherStatistics(
    num_waiting=3,
    waiting_cost=30,
    queued_audio_s=12.5,
    running_cost=10,
    running_audio_s=4.0,
    oldest_wait_s=1.5,
    num_batches=2,
    num_items=5,
    num_expired=1,
    padding_ratio=1.0,
    rtfx=40.0,
    last_batch_items=3,
)


def ended(**fields: object) -> RequestLog:
    log = RequestLog("r", time.monotonic())
    for name, value in fields.items():
        setattr(log, name, value)
    return log


def test_names_are_prometheus_style_with_units() -> None:
    for metric in METRICS.values():
        assert metric.name.startswith("paraserve_")
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert metric.description.endswith(".")


def test_series_of_alerts_are_exported_as_0_from_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: Recorded = {}

    class Begun:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
            self._values = begun.setdefault(name, [])
            self._labels = tag_keys

        def _record(self, value: float, tags: Mapping[str, str]) -> None:
            assert tuple(tags) == self._labels
            self._values.append((value, dict(tags)))

    monkeypatch.setattr(metrics, "Counter", Begun)
    for metric in METRICS.values():
        if metric.kind == "counter":
            metrics.new_counter(metric)
            # Names of models and keys are known with their first use only.
            if not {"model", "key"} & set(metric.labels):
                assert begun[metric.name], f"{metric.name} begins with its first increment"
    assert {value for values in begun.values() for value, _ in values} == {0.0}
    retried = [tags for _, tags in begun["paraserve_retries_total"]]
    assert retried == [{"stage": stage} for stage in STAGES]
    assert (0.0, {"status": "500", "code": "internal_error"}) in begun["paraserve_requests_total"]


def test_retries_are_exported_before_the_first_one(recorded: Recorded) -> None:
    IngressMetrics()
    assert recorded["paraserve_retries_total"] == []


def test_an_answered_request_counts_its_audio_as_accepted_and_done(recorded: Recorded) -> None:
    IngressMetrics().ended(ended(status=200, audio_s=60.0))
    assert recorded["paraserve_requests_total"] == [(1.0, {"status": "200", "code": "none"})]
    assert recorded["paraserve_audio_accepted_seconds_total"] == [(60.0, {})]
    assert recorded["paraserve_audio_done_seconds_total"] == [(60.0, {})]
    assert recorded["paraserve_requests_shed_total"] == []


def test_requests_and_audio_count_by_the_name_of_the_key(recorded: Recorded) -> None:
    observer = IngressMetrics()
    observer.ended(ended(status=200, audio_s=60.0, key="press"))
    observer.ended(ended(status=429, code="overloaded", audio_s=5.0, key="press"))
    assert recorded["paraserve_key_requests_total"] == [
        (1.0, {"key": "press", "status": "200"}),
        (1.0, {"key": "press", "status": "429"}),
    ]
    assert recorded["paraserve_key_audio_seconds_total"] == [(60.0, {"key": "press"})]


async def test_limits_are_exported_beside_what_is_used(recorded: Recorded) -> None:
    line = AdmissionLine(Limits(max_running=3, max_bytes=1000))
    IngressMetrics().watch(lambda: line.statistics(1.0), lambda: 0.0)
    await asyncio.sleep(0)
    assert recorded["paraserve_admission_limit"] == [
        (3, {"limit": "running"}),
        (1000, {"limit": "bytes"}),
    ]


def test_a_shed_request_counts_by_its_reason(recorded: Recorded) -> None:
    IngressMetrics().ended(ended(status=429, code="overloaded"))
    assert recorded["paraserve_requests_shed_total"] == [(1.0, {"reason": "overloaded"})]
    assert recorded["paraserve_audio_accepted_seconds_total"] == []


def test_a_stream_that_missed_its_deadline_does_not_count_as_done(recorded: Recorded) -> None:
    IngressMetrics().ended(ended(status=200, code="deadline_exceeded", audio_s=9.0))
    assert recorded["paraserve_deadline_misses_total"] == [(1.0, {})]
    assert recorded["paraserve_audio_done_seconds_total"] == []


def test_a_partial_transcript_counts(recorded: Recorded) -> None:
    IngressMetrics().ended(ended(status=200, num_failed_ranges=2))
    assert recorded["paraserve_partial_transcripts_total"] == [(1.0, {})]


async def test_the_line_is_sampled_while_the_loop_runs(recorded: Recorded) -> None:
    line = AdmissionLine(NO_LIMITS)
    context = line.arrive("key", NO_LIMITS, 1000, None, 0.0)
    line.received(context, 10.0, 0.0)
    line.arrive("key", NO_LIMITS, 0, None, 0.0)
    IngressMetrics().watch(lambda: line.statistics(1.0), lambda: 7.0)
    await asyncio.sleep(0)
    assert recorded["paraserve_requests_running"] == [(1, {})]
    assert recorded["paraserve_requests_uploading"] == [(1, {})]
    assert recorded["paraserve_upload_bytes_in_flight"] == [(1000, {})]
    assert recorded["paraserve_keys_stale_seconds"] == [(7.0, {})]


async def test_a_model_tells_its_queue_its_pack_and_its_memory(recorded: Recorded) -> None:
    ModelMetrics(READINESS, lambda: STATISTICS, lambda: (10, 20))
    await asyncio.sleep(0)
    assert recorded["paraserve_queued_audio_seconds"] == [(12.5, {})]
    assert recorded["paraserve_rtfx"] == [(40.0, {})]
    assert recorded["paraserve_items_expired_total"] == [(1, {"stage": "asr"})]
    assert recorded["paraserve_pack_info"][0][1]["checksum"] == "abc"
    assert [value for value, _ in recorded["paraserve_gpu_memory_bytes"]] == [10, 20]


async def test_models_that_were_removed_are_reported(recorded: Recorded) -> None:
    loads = {"large": 1, "small": 1}
    ModelCacheMetrics(lambda: ModelCacheStatistics(("small",), 7, loads, {"large": 1}))
    await asyncio.sleep(0)
    told = {tags["model"]: value for value, tags in recorded["paraserve_model_loaded"]}
    assert told == {"large": 0, "small": 1}


def test_a_batch_tells_its_size_and_times(recorded: Recorded) -> None:
    ModelMetrics(READINESS, lambda: STATISTICS, lambda: None).batch_ended([0.1, 0.2], 0.5)
    assert recorded["paraserve_batch_items_total"] == [(2, {"stage": "asr"})]
    assert [value for value, _ in recorded["paraserve_stage_queue_seconds"]] == [0.1, 0.2]
    assert [value for value, _ in recorded["paraserve_stage_work_seconds"]] == [0.5]


def test_chunks_count_by_their_fate(recorded: Recorded) -> None:
    SegmenterMetrics(Backlog(), None).chunks(["done", "failed", "done"])
    assert recorded["paraserve_chunks_total"] == [
        (2, {"status": "done"}),
        (1, {"status": "failed"}),
    ]


def test_retries_count_for_all_and_for_their_request(recorded: Recorded) -> None:
    count_retry("asr", RequestContext("a"))
    count_retry("asr", RequestContext("a"))
    count_retry("vad", RequestContext("b"))
    assert (take_retries(RequestContext("a")), take_retries(RequestContext("a"))) == (2, 0)
    assert take_retries(RequestContext("b")) == 1
    assert len(recorded["paraserve_retries_total"]) == 3


def test_a_sampler_waits_for_an_event_loop() -> None:
    sampled: list[int] = []
    sampler = Sampler(lambda: sampled.append(1))
    sampler.start()

    async def in_a_loop() -> None:
        sampler.start()
        sampler.start()
        await asyncio.sleep(0)
        await sampler.stop()

    asyncio.run(in_a_loop())
    assert sampled == [1]


async def test_labels_of_requests_come_from_fixed_sets(recorded: Recorded) -> None:
    limits = ApiLimits(100_000, request_timeout_s=30, spool_dir=None)
    app = build_api(
        FakeService(), limits, logging.getLogger("tests.metering"), observer=IngressMetrics()
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for number in range(30):
            invented = f"invented{number}"
            await client.request(invented, "/v1/models")
            await client.get(f"/v1/{invented}", headers={"X-Request-ID": invented})
            await client.post(
                "/v1/audio/transcriptions",
                data={"model": invented, invented: "x", "language": invented},
                files={"file": b"RIFF"},
                headers={"Content-Type": f"{invented}/x"} if number % 2 else None,
            )
    codes = {cls.code for cls in EVERY_ERROR} | {"none"}
    labeled = [tags for values in recorded.values() for _, tags in values if tags]
    assert labeled
    for tags in labeled:
        assert set(tags) <= {"status", "code", "reason", "key", "limit"}
        assert tags.get("key", "anonymous") == "anonymous"
        assert int(tags.get("status", 200)) in {200, *STATUS_OF.values()}
        assert tags.get("code", "none") in codes
