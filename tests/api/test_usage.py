"""What keys use is counted once, survives an outage of the store, and is bounded by quotas."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from serve_app.api import usage as usage_module
from serve_app.api.auth import Caller, KeyDefaults, KeyFile
from serve_app.api.usage import UsageMeter, day_after
from serve_app.core.errors import ConfigurationError, CorruptAudio
from serve_app.core.job_errors import QuotaExceeded, StoreUnavailable
from serve_app.core.records import RecordingEnd
from serve_app.jobs.records import NewJob, Usage
from serve_app.settings.keys import KeyEntry, KeyLimits, add_key, hash_of, new_key
from tests.api.job_client import JobApi
from tests.api.test_job_creation import transcribe, until
from tests.api.test_transcription import error_of
from tests.fakes.asgi import Exchange
from tests.fakes.job_store import MemoryStore

LOGGER = logging.getLogger("tests.api")
MONTH = "2026-11"


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)
        self.monotonic_s = 0.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def meter(
    store: MemoryStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[UsageMeter]:
    monkeypatch.setattr(usage_module, "_FLUSH_S", 0.001)
    meter = UsageMeter(store, LOGGER, lambda: clock.now, lambda: clock.monotonic_s)
    yield meter
    await meter.close()


async def stored(store: MemoryStore, month: str = MONTH) -> list[Usage]:
    return list(await store.usage(month))


async def test_counts_reach_the_store_in_one_call(meter: UsageMeter, store: MemoryStore) -> None:
    for _ in range(100):
        meter.count("a", "request", 0.1)
    meter.count("b", "live", 5.0, 2)
    await meter.flush()
    found = await stored(store)
    assert [(one.key, one.kind, one.num_requests) for one in found] == [
        ("a", "request", 100), ("b", "live", 2)
    ]  # fmt: skip
    assert found[0].audio_s == pytest.approx(10.0)


async def test_counts_are_added_by_themselves(meter: UsageMeter, store: MemoryStore) -> None:
    meter.count("a", "request", 1.0)
    await until(lambda: store._tables.usage)
    meter.count("a", "request", 2.0)
    await until(lambda: [one.audio_s for one in store._tables.usage.values()] == [3.0])
    await meter.flush()
    assert [one.audio_s for one in await stored(store)] == [3.0]


async def test_outage_loses_and_doubles_nothing(
    meter: UsageMeter, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store.fault = StoreUnavailable()
    for _ in range(1000):
        meter.count("a", "request", 1.0)
    await until(lambda: "usage cannot be stored now" in caplog.text)
    assert len(meter._pending) == 1
    assert meter.used_s("a") == 1000.0
    store.fault = None
    await until(lambda: "usage is stored again" in caplog.text)
    await meter.flush()
    assert [one.audio_s for one in await stored(store)] == [1000.0]
    assert caplog.text.count("usage cannot be stored now") == 1


async def test_what_is_counted_while_the_store_writes_is_kept(
    meter: UsageMeter, store: MemoryStore
) -> None:
    add_usage = store.add_usage

    async def slowly(usage: list[Usage]) -> None:
        meter.count("a", "request", 2.0)
        await add_usage(usage)

    store.add_usage = slowly  # type: ignore[assignment,method-assign]
    meter.count("a", "request", 1.0)
    await meter.flush()
    store.add_usage = add_usage  # type: ignore[method-assign]
    await meter.flush()
    assert [(one.audio_s, one.num_requests) for one in await stored(store)] == [(3.0, 2)]


async def test_month_is_that_of_the_use(
    meter: UsageMeter, store: MemoryStore, clock: Clock
) -> None:
    caller = Caller("a", max_audio_s_per_month=10.0)
    meter.count("a", "request", 10.0)
    with pytest.raises(QuotaExceeded, match="2026-12-01"):
        await meter.check(caller)
    clock.now = datetime(2026, 12, 1, tzinfo=UTC)
    await meter.check(caller)
    meter.count("a", "request", 1.0)
    await meter.flush()
    assert [one.audio_s for one in await stored(store)] == [10.0]
    assert [one.audio_s for one in await stored(store, "2026-12")] == [1.0]


async def test_quota_counts_what_other_processes_used(
    meter: UsageMeter, store: MemoryStore, clock: Clock
) -> None:
    caller = Caller("a", max_audio_s_per_month=10.0)
    await meter.check(caller)
    await store.add_usage([Usage("a", MONTH, "job", 6.0, 1), Usage("b", MONTH, "job", 60.0, 1)])
    meter.count("a", "request", 3.9)
    await meter.check(caller)
    clock.monotonic_s += 6.0
    await meter.check(caller)
    await store.add_usage([Usage("a", MONTH, "batch", 0.2, 1)])
    clock.monotonic_s += 6.0
    with pytest.raises(QuotaExceeded):
        await meter.check(caller)


async def test_store_that_hangs_does_not_hold_requests(
    meter: UsageMeter, store: MemoryStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_module, "_PATIENCE_S", 0.01)
    caller = Caller("a", max_audio_s_per_month=10.0)
    num_asked = 0

    async def hang(month: str, key: str | None = None) -> list[Usage]:
        nonlocal num_asked
        num_asked += 1
        await asyncio.Event().wait()
        return []

    store.usage = hang  # type: ignore[method-assign]
    for _ in range(5):
        await meter.check(caller)
        clock.monotonic_s += 6.0
    assert num_asked == 1
    meter.count("a", "request", 11.0)
    with pytest.raises(QuotaExceeded):
        await meter.check(caller)


async def test_outage_lets_requests_pass_by_what_is_known(
    meter: UsageMeter, store: MemoryStore, clock: Clock
) -> None:
    caller = Caller("a", max_audio_s_per_month=10.0)
    await store.add_usage([Usage("a", MONTH, "request", 6.0, 1)])
    await meter.check(caller)
    store.fault = StoreUnavailable()
    for _ in range(3):
        clock.monotonic_s += 6.0
        await meter.check(caller)
    meter.count("a", "request", 4.0)
    with pytest.raises(QuotaExceeded):
        await meter.check(caller)


async def test_open_jobs_count_for_new_jobs(meter: UsageMeter, store: MemoryStore) -> None:
    caller = Caller("a", max_audio_s_per_month=10.0)
    await meter.check_job(caller)
    await store.create(NewJob("job_1", "a", 1.0, 1, 10.0))
    await meter.check(caller)
    with pytest.raises(QuotaExceeded):
        await meter.check_job(caller)
    await meter.check_job(Caller("a"))


async def test_rest_is_stored_at_the_end(meter: UsageMeter, store: MemoryStore) -> None:
    meter.count("a", "request", 1.0)
    await meter.close()
    assert [one.audio_s for one in await stored(store)] == [1.0]


@pytest.mark.parametrize(("month", "day"), [("2026-11", "2026-12-01"), ("2026-12", "2027-01-01")])
def test_day_after(month: str, day: str) -> None:
    assert day_after(month) == day


class TestRequests:
    async def test_request_counts_its_audio(self, jobs: JobApi) -> None:
        jobs.service.end = RecordingEnd(2000, num_channels=2)
        assert (await transcribe(jobs)).status_code == 200
        body = (await jobs.client.get("/v1/usage")).json()
        assert (body["audio_s"], body["num_requests"]) == (4.0, 1)
        assert body["data"] == [{"kind": "request", "audio_s": 4.0, "num_requests": 1}]
        assert (body["key"], body["max_audio_s"]) == ("a", None)

    async def test_failed_request_costs_nothing(self, jobs: JobApi) -> None:
        jobs.service.error = CorruptAudio("x")
        assert (await transcribe(jobs)).status_code == 400
        assert (await jobs.client.get("/v1/usage")).json()["num_requests"] == 0

    async def test_caller_who_leaves_pays_for_what_was_transcribed(self, jobs: JobApi) -> None:
        jobs.service.hang = True
        request = httpx.Request(
            "POST",
            "http://test/v1/audio/transcriptions",
            data={"model": "whisper-1", "stream": "true"},
            files={"file": ("a.wav", b"RIFF" * 100)},
            headers={"Authorization": "Bearer a"},
        )
        exchange = Exchange(jobs.app, request)
        await exchange.until(lambda: "再见" in exchange.text)
        exchange.leave()
        await exchange.ended()
        assert (await jobs.client.get("/v1/usage")).json()["audio_s"] == 1.4

    async def test_used_up_quota_refuses_requests_and_jobs(self, jobs: JobApi) -> None:
        jobs.limit_a(2.0)
        assert (await transcribe(jobs)).status_code == 200
        for response in (await transcribe(jobs), await jobs.create()):
            assert response.status_code == 429
            assert error_of(response)["code"] == "quota_exceeded"
            assert error_of(response)["type"] == "rate_limit_error"
            assert response.headers["x-should-retry"] == "false"
            assert "retry-after" not in response.headers
        assert not jobs.files.contents
        body = (await jobs.client.get("/v1/usage")).json()
        assert (body["max_audio_s"], body["audio_s"]) == (2.0, 2.0)

    async def test_key_sees_its_own_usage_only(self, jobs: JobApi) -> None:
        await transcribe(jobs)
        body = (await jobs.client.get("/v1/usage", headers=jobs.as_b)).json()
        assert (body["key"], body["audio_s"], body["data"]) == ("b", 0, [])

    @pytest.mark.parametrize("query", ["month=2026-13", "month=26-1", "month=", "month=2026-11x"])
    async def test_wrong_month_is_refused(self, jobs: JobApi, query: str) -> None:
        response = await jobs.client.get(f"/v1/usage?{query}")
        assert (response.status_code, error_of(response)["param"]) == (400, "month")

    async def test_other_month(self, jobs: JobApi) -> None:
        await transcribe(jobs)
        body = (await jobs.client.get("/v1/usage?month=2020-02")).json()
        assert (body["month"], body["audio_s"], body["until"]) == ("2020-02", 0, "2020-03-01")

    async def test_outage_does_not_touch_requests(self, jobs: JobApi) -> None:
        jobs.limit_a(1000.0)
        jobs.store.fault = StoreUnavailable()
        assert (await transcribe(jobs)).status_code == 200
        assert (await jobs.client.get("/v1/usage")).status_code == 503
        jobs.store.fault = None
        assert (await jobs.client.get("/v1/usage")).json()["audio_s"] == 2.0


def keys_with_quota(path: Path, key: str) -> Path:
    limits = KeyLimits(max_audio_s_per_month=3600.0)
    add_key(path, KeyEntry(name="a", sha256=hash_of(key), limits=limits))
    return path


def test_quota_is_read_from_the_keys_file(tmp_path: Path) -> None:
    key = new_key()
    path = keys_with_quota(tmp_path / "keys.yaml", key)
    keys = KeyFile(path, KeyDefaults(counts_usage=True), LOGGER)
    assert keys.caller_of(f"Bearer {key}").max_audio_s_per_month == 3600.0


def test_quota_needs_a_service_that_counts(tmp_path: Path) -> None:
    path = keys_with_quota(tmp_path / "keys.yaml", new_key())
    with pytest.raises(ConfigurationError, match=r"needs jobs\.enabled"):
        KeyFile(path, KeyDefaults(), LOGGER)
