"""Webhooks: what is sent, who may get it, and what follows where it is not taken."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpcore
import openai
import pytest
import standardwebhooks

from serve_app.api.fetching import CheckedBackend
from serve_app.api.webhook_urls import WebhookPolicy
from serve_app.core.errors import ConfigurationError
from serve_app.core.job_errors import StoreUnavailable
from serve_app.jobs import webhooks
from serve_app.jobs.records import Delivery, JobError, JobStatus, NewJob
from serve_app.jobs.webhooks import PAUSES_S, HttpSender, Sender, WebhookRunner, signed_headers
from serve_app.scheduling.backoff import Backoff
from serve_app.settings.jobs import JobSettings
from serve_app.settings.webhook_secrets import new_webhook_secret, secret_bytes
from tests.fakes.job_store import MemoryStore
from tests.jobs.test_runner import until

KEY = "team-a"
NEW, OLD = new_webhook_secret(), new_webhook_secret()
LOGGER = logging.getLogger("tests.jobs")
TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@dataclass
class Received:
    """A request as a receiver got it."""

    head: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Receiver:
    """Answers each connection with the next of its answers, the last one for all others."""

    answers: list[bytes]
    port: int = 0
    received: list[Received] = field(default_factory=list)
    hangs: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?x=1"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (s.partition(":") for s in lines)
        }
        body = await reader.readexactly(int(headers["content-length"]))
        self.received.append(Received(head, headers, body))
        writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
        try:
            await writer.drain()
            if self.hangs:
                await reader.read()
        except ConnectionError:
            pass
        writer.close()


@asynccontextmanager
async def receiving(*answers: bytes, hangs: bool = False) -> AsyncIterator[Receiver]:
    receiver = Receiver(list(answers), hangs=hangs)
    server = await asyncio.start_server(receiver.handle, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 28, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def sender(
    secrets: Mapping[str, Sequence[str]] | None = None,
    *,
    allow_private: bool = True,
    try_s: float = 10.0,
    **settings: Any,
) -> HttpSender:
    jobs = JobSettings.model_validate({"webhook_allow_private": allow_private, **settings})
    by_key = {KEY: (NEW,)} if secrets is None else secrets
    return HttpSender(
        CheckedBackend(allow_private=allow_private),
        WebhookPolicy(jobs).check,
        lambda: by_key,
        LOGGER,
        try_s=try_s,
    )


def delivery(url: str, body: bytes = b'{"type":"transcription.completed"}') -> Delivery:
    return Delivery("msg_1", "job_1", KEY, url, body, 0, datetime.now(UTC), 1)


def headers_of(made: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode().lower(): value.decode() for name, value in made}


@pytest.mark.parametrize("secret", [NEW, OLD], ids=["new", "old"])
async def test_signature_is_accepted_by_openai_and_by_standardwebhooks(secret: str) -> None:
    """With two secrets, as in a rotation, a receiver may have either."""
    async with receiving(TAKEN) as receiver:
        assert await sender({KEY: (NEW, OLD)}).send(delivery(receiver.url)) == "delivered"
    (received,) = receiver.received
    assert received.head == "POST /hook?x=1 HTTP/1.1"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["webhook-id"] == "msg_1"
    client = openai.OpenAI(api_key="none", webhook_secret=secret)
    client.webhooks.verify_signature(received.body, received.headers)
    standardwebhooks.Webhook(secret).verify(received.body, dict(received.headers))


async def test_signature_of_something_else_is_refused() -> None:
    async with receiving(TAKEN) as receiver:
        await sender().send(delivery(receiver.url))
    (received,) = receiver.received
    client = openai.OpenAI(api_key="none", webhook_secret=NEW)
    for headers, body in (
        (received.headers, received.body + b" "),
        ({**received.headers, "webhook-id": "msg_2"}, received.body),
    ):
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.verify_signature(body, headers)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.verify_signature(received.body, received.headers, secret=OLD)


def test_headers_name_a_signature_for_each_secret() -> None:
    made = headers_of(
        signed_headers(
            delivery("https://x"), [secret_bytes(NEW), secret_bytes(OLD)], datetime.now(UTC)
        )
    )
    first, second = made["webhook-signature"].split(" ")
    assert first != second
    assert all(one.startswith("v1,") for one in (first, second))
    assert all(len(base64.b64decode(one[3:])) == 32 for one in (first, second))


@pytest.mark.parametrize(
    "answer",
    [
        BUSY,
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_other_statuses_and_redirects_are_no_delivery(answer: bytes) -> None:
    async with receiving(answer) as receiver:
        assert await sender().send(delivery(receiver.url)) == "refused"
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000]
)
async def test_what_is_no_answer_is_no_delivery(answer: bytes) -> None:
    async with receiving(answer) as receiver:
        assert await sender().send(delivery(receiver.url)) == "unreachable"


async def test_closed_port_and_unknown_host_are_no_delivery() -> None:
    async with receiving(TAKEN) as receiver:
        url = receiver.url
    assert await sender().send(delivery(url)) == "unreachable"
    assert await sender().send(delivery("http://name.invalid/hook")) == "unreachable"


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"]
)
async def test_slow_answer_is_waited_for_only_so_long(answer: bytes) -> None:
    async with receiving(answer, hangs=True) as receiver:
        assert await sender(try_s=0.2).send(delivery(receiver.url)) == "unreachable"
    assert len(receiver.received) == 1


async def test_only_the_beginning_of_an_endless_answer_is_read() -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 200_000
    async with receiving(endless, hangs=True) as receiver:
        assert await sender().send(delivery(receiver.url)) == "delivered"


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[fd00:ec2::254]/",
        "ftp://127.0.0.1/",
        "http://user:pw@127.0.0.1/",
        "not a url",
    ],
)
async def test_address_that_is_not_allowed_is_not_connected_to(url: str) -> None:
    assert await sender().send(delivery(url)) == "blocked"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1"]
)
async def test_private_addresses_are_blocked_by_default(host: str) -> None:
    url = f"https://{host}/hook"
    assert await sender(allow_private=False).send(delivery(url)) == "blocked"


async def test_hosts_that_the_operator_has_not_listed_are_blocked() -> None:
    async with receiving(TAKEN) as receiver:
        listed = sender(webhook_hosts=[f"127.0.0.1:{receiver.port}"])
        assert await listed.send(delivery(receiver.url)) == "delivered"
        other = sender(webhook_hosts=["hooks.example.com"])
        assert await other.send(delivery(receiver.url)) == "blocked"
    assert len(receiver.received) == 1


async def test_key_without_a_secret_sends_nothing() -> None:
    async with receiving(TAKEN) as receiver:
        assert await sender({"team-b": (NEW,)}).send(delivery(receiver.url)) == "unsigned"
    assert receiver.received == []


async def test_secrets_that_cannot_be_read_are_told_and_send_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def read() -> Mapping[str, Sequence[str]]:
        raise ConfigurationError("no such file")

    made = HttpSender(httpcore.AsyncMockBackend([]), lambda url: None, read, LOGGER)  # type: ignore[arg-type,return-value]
    assert await made.send(delivery("https://x.example.com")) == "unsigned"
    assert "cannot be signed" in caplog.text


@dataclass
class Desk:
    """A store with an ended job, and a runner of its webhook."""

    clock: Clock
    store: MemoryStore
    outcomes: list[str] = field(default_factory=list)

    async def end_job(self, url: str, status: JobStatus = "completed") -> None:
        new = NewJob("job_1", KEY, 1.0, 1, 1.0, webhook_url=url)
        await self.store.create(new)
        if status == "cancelled":
            await self.store.cancel(KEY, "job_1")
            return
        lease = await self.store.lease("r", 10.0)
        assert lease is not None
        if status == "failed":
            await self.store.fail(lease, JobError("corrupt_audio", "it is damaged", "file"))
        else:
            await self.store.complete(lease, "job_1/result-1.json", 1.0)

    @asynccontextmanager
    async def sending(self, by: Sender | None = None) -> AsyncIterator[WebhookRunner]:
        sending = WebhookRunner(
            "r",
            self.store,
            by or sender(),
            LOGGER,
            clock=self.clock,
            on_outcome=self.outcomes.append,
            on_given_up=lambda: self.outcomes.append("undelivered"),
            idle_s=0.01,
        )
        task = asyncio.create_task(sending.run())
        try:
            yield sending
        finally:
            sending.stop()
            async with asyncio.timeout(30):
                await task

    async def state(self) -> tuple[str | None, int]:
        job = await self.store.get(KEY, "job_1")
        return job.webhook, job.webhook_attempts


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(webhooks, "_STORING", Backoff(0.001, 0.001))
    clock = Clock()
    return Desk(clock, MemoryStore(clock=clock))


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_end_of_a_job_is_told_once(desk: Desk, status: JobStatus) -> None:
    async with receiving(TAKEN) as receiver:
        await desk.end_job(receiver.url, status)
        async with desk.sending():
            await until(lambda: desk.outcomes)
            await until(lambda: _is(desk, ("delivered", 1)))
    (received,) = receiver.received
    told = json.loads(received.body)
    assert told["type"] == f"transcription.{status}"
    assert told["data"]["id"] == "job_1"
    assert told["data"]["status"] == status
    assert desk.outcomes == ["delivered"]


async def _is(desk: Desk, state: tuple[str, int]) -> bool:
    return await desk.state() == state


async def test_refused_message_comes_again_with_growing_pauses_and_then_no_more(
    desk: Desk,
) -> None:
    async with receiving(BUSY) as receiver:
        await desk.end_job(receiver.url)
        async with desk.sending():
            for number, pause_s in enumerate(PAUSES_S, 1):
                await until(partial(_is, desk, ("pending", number)))
                desk.clock.now += timedelta(seconds=pause_s - 0.5)
                await asyncio.sleep(0.03)
                assert len(receiver.received) == number
                desk.clock.now += timedelta(seconds=1)
            await until(lambda: _is(desk, ("undelivered", len(PAUSES_S) + 1)))
            desk.clock.now += timedelta(days=2)
            await asyncio.sleep(0.03)
        assert len(receiver.received) == len(PAUSES_S) + 1
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 1
    assert desk.outcomes == ["refused"] * (len(PAUSES_S) + 1) + ["undelivered"]


async def test_message_arrives_once_the_receiver_is_back(desk: Desk) -> None:
    async with receiving(BUSY, BUSY, TAKEN) as receiver:
        await desk.end_job(receiver.url)
        async with desk.sending():
            for number in (1, 2):
                await until(partial(_is, desk, ("pending", number)))
                desk.clock.now += timedelta(hours=1)
            await until(lambda: _is(desk, ("delivered", 3)))


async def test_redelivery_has_the_same_id(desk: Desk) -> None:
    async with receiving(TAKEN) as receiver:
        await desk.end_job(receiver.url)
        async with desk.sending():
            await until(lambda: _is(desk, ("delivered", 1)))
            await desk.store.redeliver(KEY, "job_1")
            await until(lambda: len(receiver.received) == 2)
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


class _BeforeAnOutage:
    """Sends, and then the store is out."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def send(self, delivery: Delivery) -> webhooks.DeliveryOutcome:
        outcome = await sender().send(delivery)
        self._store.fault = StoreUnavailable()
        return outcome


class _Broken:
    async def send(self, delivery: Delivery) -> webhooks.DeliveryOutcome:
        raise ZeroDivisionError("bug")


async def test_outage_of_the_store_loses_no_outcome(desk: Desk) -> None:
    async with receiving(TAKEN, hangs=False) as receiver:
        await desk.end_job(receiver.url)
        async with desk.sending(_BeforeAnOutage(desk.store)):
            await until(lambda: desk.outcomes)
            await asyncio.sleep(0.03)
            desk.store.fault = None
            await until(lambda: _is(desk, ("delivered", 1)))
    assert len(receiver.received) == 1


async def test_error_that_nobody_expects_counts_as_an_attempt(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    await desk.end_job("https://hooks.example.com")
    async with desk.sending(_Broken()):
        await until(lambda: _is(desk, ("pending", 1)))
    assert desk.outcomes == ["unreachable"]
    assert "failed unexpectedly" in caplog.text


async def test_slow_receivers_do_not_hold_up_another(desk: Desk) -> None:
    async with receiving(b"", hangs=True) as slow, receiving(TAKEN) as quick:
        for number in range(5):
            new = NewJob(f"job_{number + 10}", KEY, 1.0, 1, 1.0, webhook_url=slow.url)
            await desk.store.create(new)
            await desk.store.cancel(KEY, new.id)
        await desk.end_job(quick.url)
        async with desk.sending(sender(try_s=2.0)):
            await until(lambda: quick.received)
            assert len(slow.received) <= 5


def test_receivers_time_is_within_the_lease() -> None:
    assert webhooks._TRY_S * 2 < webhooks._LEASE_S
    assert 12 * 3600 < sum(PAUSES_S) < 24 * 3600
