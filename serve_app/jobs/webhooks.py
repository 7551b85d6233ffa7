"""Sends webhooks: the message of each job's end, signed, until the receiver takes it.

A message is one transaction with the end of its job (`JobStore.take_delivery`), so it is sent at
least once, and always with the same `webhook-id`.

Source: Standard Webhooks 1.0.0; https://www.standardwebhooks.com.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol, TypeAlias

import httpcore
from standardwebhooks import Webhook

from serve_app.core.errors import ConfigurationError, RequestError
from serve_app.core.job_errors import StoreUnavailable
from serve_app.jobs.dispatching import IDLE_S, Dispatcher
from serve_app.jobs.ports import Clock, JobStore
from serve_app.jobs.records import Delivery
from serve_app.scheduling.backoff import Backoff
from serve_app.settings.webhook_secrets import secret_bytes

PAUSES_S: tuple[float, ...] = (5, 30, 120, 600, 1800, 3600, 7200, 14_400, 28_800)
"""Time from each failed attempt to the next one; after the last one the message is given up."""

DeliveryOutcome: TypeAlias = Literal["delivered", "refused", "unreachable", "blocked", "unsigned"]
"""What an attempt came to: the receiver answered with another status than 2xx ("refused"), did
not answer in time ("unreachable"), has an address that webhooks are not sent to ("blocked"), or
the key has no secret any more ("unsigned")."""

_TRY_S = 10.0
_LEASE_S = 60.0
_MAX_ANSWER_BYTES = 65_536
_MAX_AT_ONCE = 8
_STORING = Backoff(0.5, 15.0)
_SUCCESS = range(200, 300)


class Sender(Protocol):
    async def send(self, delivery: Delivery) -> DeliveryOutcome:
        """Tries once to deliver a message."""
        ...


class WebhookRunner:
    """Delivers the messages of the store as they become due.

    Args:
        name: of this runner, in the store.
        store: has the messages.
        sender: tries to deliver one.
        logger: told of each failed attempt.
        clock: the present time.
        on_outcome: told of each attempt.
        on_given_up: called for each message that stays undelivered.
        on_outage: called for each call that the store does not answer.
        idle_s: longest wait before the store is asked again for messages.
    """

    def __init__(
        self,
        name: str,
        store: JobStore,
        sender: Sender,
        logger: logging.Logger,
        *,
        clock: Clock = lambda: datetime.now(UTC),
        on_outcome: Callable[[DeliveryOutcome], None] = lambda outcome: None,
        on_given_up: Callable[[], None] = lambda: None,
        on_outage: Callable[[], None] = lambda: None,
        idle_s: float = IDLE_S,
    ) -> None:
        self._name = name
        self._store = store
        self._sender = sender
        self._logger = logger
        self._clock = clock
        self._on_outcome = on_outcome
        self._on_given_up = on_given_up
        self._on_outage = on_outage
        self._stopping = asyncio.Event()
        self._dispatcher = Dispatcher(
            store,
            self._take,
            self._deliver,
            max_at_once=_MAX_AT_ONCE,
            logger=logger,
            on_outage=on_outage,
            idle_s=idle_s,
        )

    async def run(self) -> None:
        """Delivers until `stop` is called; then ends the attempts that are under way."""
        await self._dispatcher.run(self._stopping)

    def stop(self) -> None:
        self._stopping.set()

    async def _take(self) -> Delivery | None:
        return await self._store.take_delivery(self._name, _LEASE_S)

    async def _deliver(self, delivery: Delivery) -> None:
        outcome = await self._try(delivery)
        self._on_outcome(outcome)
        if outcome == "delivered":
            await self._store_outcome(lambda: self._store.delivered(delivery))
            return
        next_at = self._next_at(delivery)
        if next_at is None:
            self._on_given_up()
        self._logger.warning(
            "webhook not delivered",
            extra={
                "paraserve_job_id": delivery.job_id,
                "key": delivery.key,
                "outcome": outcome,
                "num_attempts": delivery.num_attempts + 1,
                "next_at": None if next_at is None else next_at.isoformat(),
            },
        )
        await self._store_outcome(lambda: self._store.postpone(delivery, next_at))

    async def _try(self, delivery: Delivery) -> DeliveryOutcome:
        try:
            return await self._sender.send(delivery)
        except Exception as error:
            # The attempt counts all the same, or it would be repeated for ever.
            ids = {"paraserve_job_id": delivery.job_id, "key": delivery.key}
            self._logger.error("a webhook failed unexpectedly", extra=ids, exc_info=error)
            return "unreachable"

    def _next_at(self, delivery: Delivery) -> datetime | None:
        """Returns when to try again, None for never."""
        if delivery.num_attempts >= len(PAUSES_S):
            return None
        return self._clock() + timedelta(seconds=PAUSES_S[delivery.num_attempts])

    async def _store_outcome(self, write: Callable[[], Awaitable[None]]) -> None:
        """Stores the outcome of an attempt; gives up when another runner has the message."""
        num_failures = 0
        try:
            async with asyncio.timeout(_LEASE_S - _TRY_S):
                while True:
                    try:
                        await write()
                        return
                    except StoreUnavailable:
                        num_failures += 1
                        self._on_outage()
                    await asyncio.sleep(_STORING.pause_s(num_failures))
        except TimeoutError:
            self._logger.warning(
                "the outcome of a webhook could not be stored; it is sent again",
                extra={"stored_after": num_failures},
            )


class Target(Protocol):
    """A URL that has passed the rules, in the parts that a connection needs."""

    @property
    def scheme(self) -> str: ...

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def path(self) -> bytes: ...

    @property
    def authority(self) -> bytes: ...


class HttpSender:
    """Sends messages by HTTP POST, without redirects.

    Args:
        backend: connects, to checked addresses only.
        check_url: returns where to connect to for a URL; raises a `RequestError` if webhooks
            are not sent there.
        read_secrets: returns the secrets of the keys, the newest first; called for each message,
            so that a rotation needs no restart.
        logger: told of secrets that cannot be read.
        ssl_context: trusted authorities; the system's by default.
        clock: the present time.
        try_s: longest time of one attempt.
    """

    def __init__(
        self,
        backend: httpcore.AsyncNetworkBackend,
        check_url: Callable[[str], Target],
        read_secrets: Callable[[], Mapping[str, Sequence[str]]],
        logger: logging.Logger,
        *,
        ssl_context: ssl.SSLContext | None = None,
        clock: Clock = lambda: datetime.now(UTC),
        try_s: float = _TRY_S,
    ) -> None:
        self._backend = backend
        self._check_url = check_url
        self._read_secrets = read_secrets
        self._logger = logger
        self._ssl_context = ssl_context or ssl.create_default_context()
        self._clock = clock
        self._try_s = try_s

    async def send(self, delivery: Delivery) -> DeliveryOutcome:
        secrets = await self._secrets_of(delivery.key)
        if not secrets:
            return "unsigned"
        try:
            target = self._check_url(delivery.url)
            headers = [
                (b"Host", target.authority),
                *signed_headers(delivery, secrets, self._clock()),
            ]
            async with asyncio.timeout(self._try_s):
                status = await self._post(target, headers, delivery.body)
        except RequestError:
            return "blocked"
        except (
            TimeoutError,
            httpcore.TimeoutException,
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.UnsupportedProtocol,
        ):
            return "unreachable"
        return "delivered" if status in _SUCCESS else "refused"

    async def _post(self, target: Target, headers: list[tuple[bytes, bytes]], body: bytes) -> int:
        """Returns the status of the answer."""
        url = httpcore.URL(
            scheme=target.scheme, host=target.host, port=target.port, target=target.path
        )
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=self._ssl_context, network_backend=self._backend
            ) as pool,
            pool.stream("POST", url, headers=headers, content=body) as answer,
        ):
            await _read_some(answer)
            return answer.status

    async def _secrets_of(self, key: str) -> Sequence[bytes]:
        try:
            by_key = await asyncio.to_thread(self._read_secrets)
        except ConfigurationError as error:
            self._logger.error("webhooks cannot be signed", extra={"error": str(error)})
            return ()
        return [secret_bytes(secret) for secret in by_key.get(key, ())]


def signed_headers(
    delivery: Delivery, secrets: Sequence[bytes], sent_at: datetime
) -> list[tuple[bytes, bytes]]:
    """Returns the headers of an attempt.

    Args:
        delivery: the message.
        secrets: a signature is made by each.
        sent_at: receivers refuse a message of another time, so that nobody can repeat it.
    """
    body = delivery.body.decode()
    signatures = [Webhook(secret).sign(delivery.id, sent_at, body) for secret in secrets]
    return [
        (b"Content-Type", b"application/json"),
        (b"User-Agent", b"paraserve"),
        (b"Content-Length", str(len(delivery.body)).encode()),
        (b"webhook-id", delivery.id.encode()),
        (b"webhook-timestamp", str(int(sent_at.timestamp())).encode()),
        (b"webhook-signature", " ".join(signatures).encode()),
    ]


async def _read_some(answer: httpcore.Response) -> None:
    """Reads the beginning of an answer, so that its receiver sees it taken."""
    num_bytes = 0
    async for part in answer.aiter_stream():
        num_bytes += len(part)
        if num_bytes >= _MAX_ANSWER_BYTES:
            return
