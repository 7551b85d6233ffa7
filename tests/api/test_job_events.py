"""Callers are told of each change of a job until its end, and nobody asks the store for more."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.api import event_stream
from serve_app.api.draining import DrainMiddleware
from serve_app.api.job_events import JobWatch
from serve_app.core.errors import Overloaded
from serve_app.core.in_flight import InFlightCounter, num_in_flight
from serve_app.core.job_errors import JobNotFound, StoreUnavailable
from serve_app.jobs.records import Job, NewJob
from tests.api.job_client import JobApi
from tests.api.test_job_creation import until
from tests.api.test_transcription import error_of
from tests.fakes.asgi import Exchange
from tests.fakes.job_store import MemoryStore

LOGGER = logging.getLogger("tests.api")


class CountedStore(MemoryStore):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Sequence[str]] = []
        self.num_gets = 0

    async def versions(self, ids: Sequence[str]) -> Mapping[str, int]:
        self.asked.append(ids)
        return await super().versions(ids)

    async def get(self, key: str, job_id: str) -> Job:
        self.num_gets += 1
        return await super().get(key, job_id)


@pytest.fixture
async def store() -> CountedStore:
    store = CountedStore()
    for name in ("job_1", "job_2"):
        await store.create(NewJob(name, "a", 1.0, 10, 1.0))
    return store


@pytest.fixture
async def watch(store: CountedStore) -> AsyncIterator[JobWatch]:
    watch = JobWatch(store, LOGGER, max_watchers=4, period_s=0.002)
    yield watch
    await watch.close()


class Follower:
    """Follows a job in a task."""

    def __init__(self, watch: JobWatch, key: str = "a", job_id: str = "job_1") -> None:
        self.statuses: list[str] = []
        self.task = asyncio.create_task(self._follow(watch, key, job_id))

    async def _follow(self, watch: JobWatch, key: str, job_id: str) -> None:
        async for job in watch.follow(key, job_id):
            self.statuses.append(job.status)


async def test_each_change_is_told_until_the_end(store: CountedStore, watch: JobWatch) -> None:
    followers = [Follower(watch) for _ in range(3)]
    await until(lambda: all(one.statuses == ["queued"] for one in followers))
    lease = await store.lease("r", 30)
    assert lease is not None
    await until(lambda: all(one.statuses[1:] == ["running"] for one in followers))
    await store.complete(lease, "x", 1.0)
    for one in followers:
        await one.task
        assert one.statuses[-1] == "completed"


async def test_store_is_asked_once_for_all_and_only_while_somebody_watches(
    store: CountedStore, watch: JobWatch
) -> None:
    followers = [Follower(watch, job_id=name) for name in ("job_1", "job_1", "job_2")]
    await until(lambda: len(store.asked) >= 5)
    assert {frozenset(ids) for ids in store.asked[2:]} == {frozenset({"job_1", "job_2"})}
    assert store.num_gets == 3
    for name in ("job_1", "job_2"):
        await store.cancel("a", name)
    for one in followers:
        await one.task
    num_asked = len(store.asked)
    await asyncio.sleep(0.05)
    assert len(store.asked) <= num_asked + 1


async def test_watch_goes_on_after_an_outage(store: CountedStore, watch: JobWatch) -> None:
    follower = Follower(watch)
    await until(lambda: follower.statuses)
    store.fault = StoreUnavailable()
    num_asked = len(store.asked)
    await until(lambda: len(store.asked) > num_asked + 2)
    store.fault = None
    await store.cancel("a", "job_1")
    await follower.task
    assert follower.statuses == ["queued", "cancelled"]


async def test_watch_ends_with_a_removed_job(store: CountedStore, watch: JobWatch) -> None:
    follower = Follower(watch)
    await until(lambda: follower.statuses)
    await store.delete("a", "job_1")
    await follower.task
    assert follower.statuses == ["queued"]


async def test_watch_ends_after_a_while(store: CountedStore) -> None:
    now = 0.0
    watch = JobWatch(store, LOGGER, max_watchers=4, period_s=0.002, clock=lambda: now)
    follower = Follower(watch)
    await until(lambda: follower.statuses)
    now = 1e6
    lease = await store.lease("r", 30)
    assert lease is not None
    await follower.task
    assert follower.statuses[0] == "queued"
    await watch.close()


async def test_number_of_watchers_of_a_key_is_bounded(store: CountedStore, watch: JobWatch) -> None:
    first = [Follower(watch) for _ in range(3)]
    await until(lambda: all(one.statuses for one in first))
    with pytest.raises(Overloaded):
        await Follower(watch).task
    with pytest.raises(JobNotFound):
        await Follower(watch, "b").task
    await store.cancel("a", "job_1")
    await asyncio.gather(*(one.task for one in first))
    await Follower(watch).task


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def events_request(job_id: str) -> httpx.Request:
    return httpx.Request(
        "GET", f"http://test/v1/jobs/{job_id}/events", headers={"Authorization": "Bearer a"}
    )


async def test_stream_ends_after_the_final_state(jobs: JobApi) -> None:
    job_id = await jobs.created()
    exchange = Exchange(jobs.app, events_request(job_id))
    await exchange.until(lambda: "queued" in exchange.text)
    headers = dict(exchange.sent[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    await jobs.complete()
    await exchange.ended()
    events = events_of(exchange.text)
    assert {name for name, _ in events} == {"job"}
    assert [job["status"] for _, job in events][:1] == ["queued"]
    assert events[0][1]["position"] == 0
    assert events[-1][1]["status"] == "completed"
    assert events[-1][1] == (await jobs.client.get(f"/v1/jobs/{job_id}")).json()


async def test_ended_job_is_told_at_once(jobs: JobApi) -> None:
    job_id = await jobs.created()
    await jobs.complete()
    response = await jobs.client.get(f"/v1/jobs/{job_id}/events")
    assert [job["status"] for _, job in events_of(response.text)] == ["completed"]


async def test_heartbeats_keep_the_connection(
    jobs: JobApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "_HEARTBEAT_S", 0.01)
    job_id = await jobs.created()
    exchange = Exchange(jobs.app, events_request(job_id))
    await exchange.until(lambda: exchange.text.count(event_stream.HEARTBEAT) >= 2)
    await jobs.store.cancel("a", job_id)
    await exchange.ended()


async def test_failure_is_the_last_event(jobs: JobApi) -> None:
    job_id = await jobs.created()
    exchange = Exchange(jobs.app, events_request(job_id))
    await exchange.until(lambda: "queued" in exchange.text)
    get = jobs.store.get

    async def fail(key: str, job_id: str) -> Job:
        raise RuntimeError("secret")

    jobs.store.get = fail  # type: ignore[method-assign]
    await jobs.store.cancel("a", job_id)
    await exchange.ended()
    name, told = events_of(exchange.text)[-1]
    assert (name, told["error"]["code"]) == ("error", "internal_error")
    assert "secret" not in exchange.text
    jobs.store.get = get  # type: ignore[method-assign]


async def test_head_opens_no_stream(jobs: JobApi) -> None:
    job_id = await jobs.created()
    response = await jobs.client.head(f"/v1/jobs/{job_id}/events")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"].startswith("text/event-stream")


async def test_outage_before_the_first_event_is_a_status(jobs: JobApi) -> None:
    job_id = await jobs.created()
    jobs.store.fault = StoreUnavailable()
    response = await jobs.client.get(f"/v1/jobs/{job_id}/events")
    assert (response.status_code, error_of(response)["code"]) == (503, "job_store_unavailable")


async def test_open_streams_do_not_delay_the_end_of_the_service(
    jobs: JobApi, tmp_path: Path
) -> None:
    counter = InFlightCounter(tmp_path)
    job_id = await jobs.created()
    exchange = Exchange(DrainMiddleware(jobs.app, counter), events_request(job_id))
    await exchange.until(lambda: "queued" in exchange.text)
    assert num_in_flight(tmp_path) == 0
    await jobs.store.cancel("a", job_id)
    await exchange.ended()
    counter.close()
