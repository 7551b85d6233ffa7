"""`paraserve live`: captions while somebody speaks."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli.captions import Captions, captions_for
from serve_app.cli.console import FAILED, PARTIAL, console_for, tell
from serve_app.cli.live_audio import AudioInput, MicrophoneInput, PipeInput, RecordingInput
from serve_app.cli.options import JsonOption, checked_secret, read_secret
from serve_app.client import (
    AsyncParaserve,
    ClientError,
    LiveEnded,
    LiveError,
    LiveFailure,
    LiveRequest,
    LiveSession,
)
from serve_app.core.errors import ConfigurationError

_PIPE = "-"
_KEY_VARIABLES = ("PARASERVE_API_KEY", "OPENAI_API_KEY")
_SEPARATORS = str.maketrans(",，、", "   ")


def live_command(
    file: Annotated[
        str | None,
        typer.Argument(
            help="A recording, sent as fast as it was spoken; - for raw 16-bit mono samples on "
            "standard input; the microphone by default."
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="URL of the service; $PARASERVE_URL, then http://localhost:8000."),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the API key; $PARASERVE_API_KEY, then $OPENAI_API_KEY by default."
        ),
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language, such as zh.")] = None,
    hotwords: Annotated[
        str | None, typer.Option(help="Words to prefer, separated by spaces or commas.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="One of the served models; the first by default.")
    ] = None,
    rate: Annotated[
        int, typer.Option(min=8000, max=48_000, help="Sample rate in Hz of standard input.")
    ] = 16_000,
    speed: Annotated[
        float,
        typer.Option(min=0.1, max=100, help="Send a recording so many times as fast as spoken."),
    ] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Transcribe speech while it is spoken. Ctrl-C ends the audio and waits for the last text.

    Exit codes: 0 success, 1 the session ended early, 3 parts of the speech have no text.
    """
    audio = _audio_input(file, rate, speed)
    words = (hotwords or "").translate(_SEPARATORS).split()
    request = LiveRequest(model, language, words, audio.rate_hz)
    try:
        client = AsyncParaserve(url, _api_key(api_key_file))
    except ValueError as error:
        raise ConfigurationError(f"--url {error}") from None
    captions = captions_for(console_for(sys.stdout), as_json=as_json)
    raise typer.Exit(asyncio.run(LiveRun(client, request, audio, captions).run()))


def _audio_input(file: str | None, rate_hz: int, speed: float) -> AudioInput:
    if file is None:
        return MicrophoneInput()
    if file == _PIPE:
        return PipeInput(sys.stdin.buffer, rate_hz)
    try:
        return RecordingInput(Path(file), speed)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror or error}") from None


def _api_key(file: Path | None) -> str:
    if file is not None:
        return read_secret(file)
    for name in _KEY_VARIABLES:
        if key := os.environ.get(name, "").strip():
            return checked_secret(key, name)
    return ""


class LiveRun:
    """One session, from the first sample to the last text.

    Args:
        client: of the service; closed at the end.
        request: what the session is to do.
        audio: what is spoken.
        captions: show the text.
    """

    def __init__(
        self, client: AsyncParaserve, request: LiveRequest, audio: AudioInput, captions: Captions
    ) -> None:
        self._client = client
        self._request = request
        self._audio = audio
        self._captions = captions
        self._num_failed = 0

    async def run(self) -> int:
        """Returns the exit code."""
        try:
            async with self._client, self._client.live(self._request) as session:
                return await self._talk(session)
        except LiveEnded as ended:
            tell("error", f"the session ended at {ended.position_s:.1f} s: {ended}")
        except ClientError as error:
            tell("error", str(error))
        return FAILED

    async def _talk(self, session: LiveSession) -> int:
        sending = asyncio.create_task(self._send(session))
        try:
            with self._captions:
                async for event in session:
                    self._captions.show(event)
                    if isinstance(event, LiveError | LiveFailure):
                        self._tell(event)
        except ClientError:
            sending.cancel()
            raise
        await sending
        return PARTIAL if self._num_failed else 0

    def _tell(self, event: LiveError | LiveFailure) -> None:
        if isinstance(event, LiveFailure):
            self._num_failed += 1
            tell("partial", f"a segment has no text: {event.message}")
        else:
            tell("warning", event.message)

    async def _send(self, session: LiveSession) -> None:
        """Sends the audio until it ends, or Ctrl-C is pressed.

        Raises:
            ParaserveError: the audio cannot be read further; the texts so far still come.
        """
        speaking = asyncio.create_task(self._speak(session))
        _cancel_at_interrupt(speaking)
        try:
            await asyncio.wait((speaking,))
        finally:
            speaking.cancel()
        with suppress(LiveEnded):  # the iteration raises it too
            await session.finish()
        if not speaking.cancelled():
            speaking.result()

    async def _speak(self, session: LiveSession) -> None:
        async with aclosing(self._audio.pieces()) as pieces:
            with suppress(LiveEnded):
                async for piece in pieces:
                    await session.send(piece)


def _cancel_at_interrupt(task: asyncio.Task[None]) -> None:
    """Lets the first Ctrl-C cancel a task; the second one interrupts the command as usual."""
    loop = asyncio.get_running_loop()

    def cancel() -> None:
        task.cancel()
        loop.remove_signal_handler(signal.SIGINT)

    # Only the main thread gets signals, and not on every system.
    with suppress(NotImplementedError, RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGINT, cancel)
