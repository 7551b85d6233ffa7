"""Audio for a live session: a recording at its own pace, a pipe, or the microphone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import BinaryIO, Protocol

from serve_app.audio import AudioDecoder, AudioLimits
from serve_app.core.errors import ConfigurationError
from serve_app.core.records import SAMPLE_RATE_HZ

PIECE_S = 0.1
"""Length of the pieces that are sent."""

_SAMPLE_BYTES = 2
_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 8_000, 48_000
_BLOCK_S = 1.0
_QUEUED_PIECES = 50


class AudioInput(Protocol):
    """Where the audio of a session comes from.

    Attributes:
        rate_hz: of its 16-bit mono samples.
    """

    rate_hz: int

    def pieces(self) -> AsyncGenerator[bytes]:
        """Yields the audio as it is to be sent."""
        ...


class RecordingInput:
    """A recording of any format, as fast as it was spoken.

    Args:
        file: to read.
        speed: 2 for twice as fast.

    Raises:
        AudioError: it is not a recording that can be read.
        OSError: it cannot be opened.
    """

    rate_hz = SAMPLE_RATE_HZ

    def __init__(self, file: Path, speed: float = 1.0) -> None:
        self._decoder = AudioDecoder(file, AudioLimits(block_s=_BLOCK_S))
        self._speed = speed

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Yields each piece when its last sample would have been spoken.

        Raises:
            AudioError: the rest cannot be read.
        """
        piece_samples = round(PIECE_S * self.rate_hz)
        began_s, num_samples = time.monotonic(), 0
        with self._decoder as decoder:
            for block in decoder.blocks():
                for start in range(0, len(block), piece_samples):
                    piece = block[start : start + piece_samples]
                    num_samples += len(piece)
                    due_s = began_s + num_samples / self.rate_hz / self._speed
                    await asyncio.sleep(due_s - time.monotonic())
                    yield piece.tobytes()


class PipeInput:
    """Raw samples from a stream, as they come.

    Args:
        stream: of 16-bit mono PCM, little-endian.
        rate_hz: of it.
    """

    def __init__(self, stream: BinaryIO, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self._stream = stream

    async def pieces(self) -> AsyncGenerator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue(_QUEUED_PIECES)
        loop = asyncio.get_running_loop()

        def read() -> None:
            # Nobody can interrupt a blocked read: the thread ends with the process.
            with suppress(RuntimeError, OSError, ValueError):  # the loop or the stream is closed
                while True:
                    content = self._read()
                    asyncio.run_coroutine_threadsafe(queue.put(content), loop).result()
                    if not content:
                        return

        Thread(target=read, daemon=True).start()
        while content := await queue.get():
            yield content

    def _read(self) -> bytes:
        num_bytes = round(PIECE_S * self.rate_hz) * _SAMPLE_BYTES
        read1: Callable[[int], bytes] = getattr(self._stream, "read1", self._stream.read)
        return read1(num_bytes)


class MicrophoneInput:
    """The default microphone of this machine.

    Raises:
        ConfigurationError: there is none, or the library for it is not installed.
    """

    def __init__(self) -> None:
        try:
            import sounddevice
        except ModuleNotFoundError:
            raise ConfigurationError(
                "the microphone needs sounddevice: pip install 'paraserve[microphone]', or give "
                "a recording, or - for raw samples on standard input"
            ) from None
        except OSError as error:  # its wheel for Linux holds no PortAudio
            raise ConfigurationError(
                f"the microphone needs PortAudio: {error}; on Debian: apt install libportaudio2"
            ) from None
        try:
            device = sounddevice.query_devices(kind="input")
        except (sounddevice.PortAudioError, ValueError) as error:
            raise _no_microphone(error) from None
        rate_hz = int(device["default_samplerate"])
        self.rate_hz = min(max(rate_hz, _LOWEST_RATE_HZ), _HIGHEST_RATE_HZ)

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Yields what is heard, without end.

        Raises:
            ConfigurationError: the microphone cannot be opened.
        """
        import sounddevice

        queue: asyncio.Queue[bytes] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def take(samples: bytes, *_: object) -> None:
            content = bytes(samples)
            loop.call_soon_threadsafe(queue.put_nowait, content)

        try:
            stream = sounddevice.RawInputStream(
                samplerate=self.rate_hz,
                blocksize=round(PIECE_S * self.rate_hz),
                channels=1,
                dtype="int16",
                callback=take,
            )
        except sounddevice.PortAudioError as error:
            raise _no_microphone(error) from None
        with stream:
            while True:
                yield await queue.get()


def _no_microphone(error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"there is no microphone ({error}); give a recording, or - for raw samples on standard "
        "input"
    )
