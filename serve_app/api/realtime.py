"""OpenAI's Realtime protocol for transcription, over one live session.

Source: OpenAI's API reference, "Realtime client events" and "Realtime server events"; the types
of openai-python 3.57. `session.finish` is not OpenAI's: no audio follows, and the connection
closes when all texts are told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from serve_app.api import realtime_events as events
from serve_app.api.live_connection import LiveConnection
from serve_app.api.message_boxes import NORMAL, ConnectionEnd
from serve_app.api.parameters import Offer
from serve_app.api.realtime_messages import BadEvent, ClientEvent, read_event
from serve_app.api.realtime_session import (
    RealtimeSession,
    SessionIdentity,
    describe,
    describe_flat,
    update_session,
)
from serve_app.core.errors import InvalidParameter, ParaserveError
from serve_app.core.live_errors import UnknownEvent
from serve_app.live.records import (
    FinalText,
    LiveEvent,
    PartialText,
    SegmentFailed,
    SpeechStarted,
    SpeechStopped,
)

_MAX_SHOWN_CHARS = 64


class _Item:
    """The item of one segment, and what was told of its text."""

    def __init__(self) -> None:
        self.item_id = events.new_id("item")
        self.told = ""
        self.is_committed = False


class RealtimeProtocol:
    """Speaks the Realtime protocol on one connection.

    Args:
        connection: to the client and to the session.
        session: configuration that the session was opened with.
        offer: of the service.
        identity: of the session.
        is_old: whether the client speaks the protocol as it was before its release: the header
            `OpenAI-Beta: realtime=v1`.
    """

    def __init__(
        self,
        connection: LiveConnection,
        session: RealtimeSession,
        offer: Offer,
        identity: SessionIdentity,
        *,
        is_old: bool,
    ) -> None:
        self._connection = connection
        self._session = session
        self._offer = offer
        self._identity = identity
        self._is_old = is_old
        self._items: dict[int, _Item] = {}
        self._last_item_id: str | None = None
        self._handlers: dict[str, Callable[[ClientEvent], Awaitable[None]]] = {
            "session.update": self._update,
            "transcription_session.update": self._update_old,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
            "session.finish": self._finish,
        }

    def start(self) -> None:
        self._send_session("session.created", describe(self._session, self._identity))
        if self._is_old:
            self._send_session(
                "transcription_session.created", describe_flat(self._session, self._identity)
            )

    async def handle(self, message: str | bytes) -> None:
        try:
            client_event = read_event(message)
        except BadEvent as bad:
            self._tell_error(bad.error, bad.event_id)
            return
        handler = self._handlers.get(client_event.kind)
        try:
            if handler is None:
                raise UnknownEvent(
                    f"{client_event.kind[:_MAX_SHOWN_CHARS]!r} is no event of a transcription "
                    f"session; it takes {', '.join(self._handlers)}"
                )
            await handler(client_event)
        except ParaserveError as error:
            self._tell_error(error, client_event.event_id)

    def tell(self, event: LiveEvent) -> None:
        match event:
            case SpeechStarted():
                self._started(event)
            case SpeechStopped():
                self._stopped(event)
            case PartialText():
                self._tell_delta(self._item(event.segment), event.delta)
            case FinalText():
                self._completed(event)
            case SegmentFailed():
                self._failed(event)

    def tell_end(self, error: ParaserveError, position_ms: int) -> None:
        self._connection.send(events.error_event(error, position_ms=position_ms))

    def _tell_error(self, error: ParaserveError, event_id: str | None) -> None:
        self._connection.count_error()
        self._connection.send(events.error_event(error, event_id))

    def _send_session(self, kind: str, described: dict[str, object]) -> None:
        self._connection.send(events.event(kind, session=described))

    async def _update(self, client_event: ClientEvent) -> None:
        await self._take_update(client_event, is_flat=False)
        self._send_session("session.updated", describe(self._session, self._identity))

    async def _update_old(self, client_event: ClientEvent) -> None:
        self._is_old = True
        await self._take_update(client_event, is_flat=True)
        self._send_session(
            "transcription_session.updated", describe_flat(self._session, self._identity)
        )

    async def _take_update(self, client_event: ClientEvent, *, is_flat: bool) -> None:
        if "session" not in client_event.fields:
            raise InvalidParameter("session", "is required")
        updated = update_session(
            self._session, client_event.fields["session"], self._offer, is_flat=is_flat
        )
        if updated.audio == self._session.audio:
            self._connection.session.configure(updated.options)
        elif self._connection.has_audio:
            raise InvalidParameter(
                "session.audio.input.format", "cannot change once audio has been sent"
            )
        else:
            await self._connection.reopen(updated.audio, updated.options)
        self._session = updated

    async def _append(self, client_event: ClientEvent) -> None:
        if client_event.audio is None:
            raise InvalidParameter("audio", "must be a string of base64")
        await self._connection.push(client_event.audio)

    async def _commit(self, client_event: ClientEvent) -> None:
        self._connection.session.commit()

    async def _clear(self, client_event: ClientEvent) -> None:
        self._connection.session.clear()
        self._connection.send(events.event("input_audio_buffer.cleared"))

    async def _finish(self, client_event: ClientEvent) -> None:
        await self._connection.finish()
        raise ConnectionEnd(NORMAL)

    def _item(self, segment: int) -> _Item:
        return self._items.setdefault(segment, _Item())

    def _started(self, event: SpeechStarted) -> None:
        # After `clear`, a segment may begin once more: as another item.
        item = self._items[event.segment] = _Item()
        if self._session.detects_turns:
            self._connection.send(
                events.event(
                    "input_audio_buffer.speech_started",
                    item_id=item.item_id,
                    audio_start_ms=event.start_ms,
                )
            )

    def _stopped(self, event: SpeechStopped) -> None:
        item = self._item(event.segment)
        if self._session.detects_turns:
            self._connection.send(
                events.event(
                    "input_audio_buffer.speech_stopped",
                    item_id=item.item_id,
                    audio_end_ms=event.end_ms,
                )
            )
        self._commit_item(item)

    def _commit_item(self, item: _Item) -> None:
        if item.is_committed:
            return
        previous, self._last_item_id, item.is_committed = self._last_item_id, item.item_id, True
        self._connection.send(events.committed(item.item_id, previous))
        for told in events.item_events(item.item_id, previous, is_old=self._is_old):
            self._connection.send(told)

    def _tell_delta(self, item: _Item, text: str) -> None:
        if text:
            item.told += text
            self._connection.send(events.delta(item.item_id, text))

    def _completed(self, final: FinalText) -> None:
        item = self._item(final.segment)
        self._commit_item(item)
        if final.text.startswith(item.told):
            self._tell_delta(item, final.text[len(item.told) :])
        language = final.language or self._session.parameters.language
        self._connection.send(
            events.completed(
                item.item_id, final, language, with_logprobs=self._session.with_logprobs
            )
        )
        del self._items[final.segment]

    def _failed(self, failure: SegmentFailed) -> None:
        item = self._item(failure.segment)
        self._commit_item(item)
        self._connection.send(events.failed(item.item_id, failure))
        del self._items[failure.segment]
