"""FunASR's WebSocket protocol, over one live session for each utterance.

The client describes its audio, sends samples, and says `is_speaking: false`; then it may describe
the next utterance. Mode `2pass` tells the text while it is spoken (`2pass-online`, to be
appended) and the text of each segment at its end (`2pass-offline`, which replaces it); `online`
only the former, `offline` one text at the end of the utterance. Times count from the start of
the utterance. `is_final` is true once, in the last message of an utterance.

Source: FunASR, `runtime/docs/websocket_protocol.md`, and its clients.
"""

from __future__ import annotations

from serve_app.api.funasr_messages import (
    Message,
    Utterance,
    describe_utterance,
    error_message,
    read_message,
    sentences_message,
    text_message,
)
from serve_app.api.funasr_wave import WaveStart, may_be_wave, read_wave_start
from serve_app.api.live_connection import LiveConnection
from serve_app.api.message_boxes import POLICY_VIOLATION, ConnectionEnd
from serve_app.api.parameters import Offer
from serve_app.core.errors import ParaserveError, RecognitionFailed
from serve_app.live.records import (
    AudioFormat,
    FinalText,
    LiveEvent,
    PartialText,
    SegmentFailed,
    SessionOptions,
)
from serve_app.transcript.itn import SentenceRewriter
from serve_app.transcript.transcript import Sentence


class FunasrProtocol:
    """Speaks FunASR's protocol on one connection.

    Args:
        connection: to the client and to the session.
        utterance: that the session was opened for.
        offer: of the service.
    """

    def __init__(self, connection: LiveConnection, utterance: Utterance, offer: Offer) -> None:
        self._connection = connection
        self._utterance = utterance
        self._offer = offer
        self._is_over = False
        self._begin()

    def _begin(self) -> None:
        """Forgets the last utterance."""
        self._told: dict[int, str] = {}
        self._sentences: list[Sentence] = []
        self._last: Message | None = None
        self._is_finishing = False
        self._unread: bytes | None = b""
        self._num_left: int | None = None
        self._rewriter = SentenceRewriter(self._utterance.parameters.text_rules)

    def start(self) -> None:
        """The client speaks first."""

    async def handle(self, message: str | bytes) -> None:
        try:
            if isinstance(message, bytes):
                await self._take_audio(message)
            else:
                await self._take_text(message)
        except ParaserveError as error:
            raise ConnectionEnd(POLICY_VIOLATION, error) from None

    def tell(self, event: LiveEvent) -> None:
        match event:
            case PartialText():
                self._partial(event)
            case FinalText():
                self._final(event)
            case SegmentFailed():
                error = RecognitionFailed(f"{event.code}: {event.message}")
                self._send(error_message(self._utterance, error, is_final=False))
                self._told.pop(event.segment, None)

    def tell_end(self, error: ParaserveError, position_ms: int) -> None:
        message = error_message(self._utterance, error, is_final=True)
        self._connection.send({**message, "position_ms": position_ms})

    async def _take_text(self, text: str) -> None:
        message = read_message(text)
        self._utterance = describe_utterance(self._utterance, message, self._offer)
        if message.get("is_speaking") is False:
            if not self._is_over:
                await self._finish()
            return
        audio = AudioFormat("pcm16", self._utterance.rate_hz)
        if self._is_over:
            await self._reopen(audio)
        elif self._connection.has_audio or audio == self._connection.audio:
            self._rewriter = SentenceRewriter(self._utterance.parameters.text_rules)
            self._connection.session.configure(session_options(self._utterance))
        else:
            await self._reopen(audio)

    async def _reopen(self, audio: AudioFormat) -> None:
        unread = self._unread
        await self._connection.reopen(audio, session_options(self._utterance))
        was_over, self._is_over = self._is_over, False
        if was_over:
            self._begin()
        else:
            self._unread = unread

    async def _take_audio(self, data: bytes) -> None:
        if self._is_over:
            await self._reopen(AudioFormat("pcm16", self._utterance.rate_hz))
        if self._unread is not None:
            data = await self._without_header(self._unread + data)
        if self._num_left is not None:
            # What follows the samples of a file are remarks.
            data = data[: self._num_left]
            self._num_left -= len(data)
        await self._connection.push(data)

    async def _without_header(self, data: bytes) -> bytes:
        """Returns the samples, once it is known where they begin."""
        if not may_be_wave(data):
            self._unread = None
            return data
        start: WaveStart | None = read_wave_start(data)
        if start is None:
            self._unread = data
            return b""
        self._unread, self._num_left = None, start.num_bytes
        audio = AudioFormat("pcm16", start.rate_hz)
        if audio != self._connection.audio:
            await self._reopen(audio)
        return data[start.start :]

    async def _finish(self) -> None:
        if self._unread:
            # A few bytes that looked like the beginning of a header.
            await self._connection.push(self._unread)
        self._is_finishing = True
        await self._connection.finish()
        self._is_over = True
        mode = self._utterance.mode
        if mode == "offline":
            self._connection.send(
                sentences_message(self._utterance, mode, self._sentences, is_final=True)
            )
            return
        kind = mode if mode == "online" else "2pass-offline"
        last = self._last or text_message(self._utterance, kind, "")
        self._connection.send({**last, "is_final": True})

    def _send(self, message: Message) -> None:
        """Sends a message; after the last audio it waits for the next one: it may be the last."""
        if self._is_finishing:
            self._last, message = message, self._last or {}
        if message:
            self._connection.send(message)

    def _partial(self, event: PartialText) -> None:
        mode = self._utterance.mode
        self._told[event.segment] = self._told.get(event.segment, "") + event.delta
        if mode != "offline" and event.delta:
            kind = mode if mode == "online" else "2pass-online"
            self._send(text_message(self._utterance, kind, event.delta))

    def _final(self, event: FinalText) -> None:
        told = self._told.pop(event.segment, "")
        rewritten = (self._rewriter.rewrite(sentence) for sentence in event.sentences)
        sentences = [sentence for sentence in rewritten if sentence is not None]
        if self._utterance.mode == "offline":
            self._sentences += sentences
        elif self._utterance.mode == "online":
            if event.text.startswith(told) and event.text != told:
                rest = event.text[len(told) :]
                self._send(text_message(self._utterance, "online", rest))
        elif sentences:
            self._send(sentences_message(self._utterance, "2pass-offline", sentences))


def session_options(utterance: Utterance) -> SessionOptions:
    """Returns the session's options; the text rules are applied here.

    In a session with rules nothing could be told before a segment's end.
    """
    parameters = utterance.parameters
    return SessionOptions(
        recognition_options=parameters.recognition_options,
        detection=parameters.speech_detection,
        punctuate="punctuation" in parameters.stages,
        partials=utterance.mode != "offline",
    )
