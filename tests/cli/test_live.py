"""`paraserve live`, against a server with a script."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from rich.console import Console

from serve_app.cli.captions import Captions, TerminalCaptions, captions_for
from serve_app.cli.console import FAILED, PARTIAL
from serve_app.cli.live import LiveRun
from serve_app.cli.live_audio import AudioInput, MicrophoneInput, PipeInput, RecordingInput
from serve_app.client import AsyncParaserve, LiveFinal, LivePartial, LiveRequest
from serve_app.core.errors import AudioError, ConfigurationError
from tests.fakes.live_service import ScriptedLiveService, ScriptedSegment

SEGMENTS = (ScriptedSegment(100, 900, "你好。"), ScriptedSegment(1100, 1900, "再见。"))
RATE_HZ = 16_000


@pytest.fixture
async def service() -> AsyncIterator[ScriptedLiveService]:
    async with ScriptedLiveService(SEGMENTS).running() as running:
        yield running


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    samples = np.arange(2 * RATE_HZ, dtype=np.int16)
    soundfile.write(path, samples, RATE_HZ)
    return path


async def live(*arguments: str, stdin: bytes | None = None) -> tuple[int, str, str]:
    """Runs the command; returns its exit code and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "serve_app.cli.main", "live", *arguments),
        env={**os.environ, "OPENAI_API_KEY": ""},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def run(service: ScriptedLiveService, audio: AudioInput, stream: io.StringIO) -> int:
    client = AsyncParaserve(service.url, "", max_retries=0)
    request = LiveRequest(rate_hz=audio.rate_hz)
    return await LiveRun(client, request, audio, Captions(Console(file=stream))).run()


async def test_recording_is_captioned_in_lines(
    service: ScriptedLiveService, recording: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("psk_of-a-test\n")
    options = ("--hotwords", "云梯, 杭州", "--language", "zh", "--model", "m", "--speed", "50")
    code, out, err = await live(
        *(str(recording), "--url", service.url, "--api-key-file", str(key), *options)
    )
    assert (code, out, err) == (0, "你好。\n再见。\n", "")
    assert service.keys == ["Bearer psk_of-a-test"]
    asked = service.updates[0]["audio"]["input"]
    assert asked["format"]["rate"] == RATE_HZ
    assert asked["transcription"] == {"model": "m", "language": "zh", "keywords": ["云梯", "杭州"]}
    assert len(service.audio[0]) == 2 * 2 * RATE_HZ


async def test_events_are_printed_as_json(service: ScriptedLiveService, recording: Path) -> None:
    code, out, _ = await live(str(recording), "--url", service.url, "--speed", "50", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [one["event"] for one in events] == [
        *("speech_started", "partial", "speech_stopped", "partial", "final") * 2
    ]
    assert events[4]["words"][0] == {
        **{"start_s": 0.1, "end_s": 0.9, "text": "你好。", "confidence": 0.9},
        **{"speaker": None, "channel": None},
    }


async def test_raw_samples_come_from_standard_input(service: ScriptedLiveService) -> None:
    pcm = bytes(range(250)) * 128
    code, out, err = await live("-", "--rate", "8000", "--url", service.url, stdin=pcm)
    assert (code, out, err) == (0, "你好。\n再见。\n", "")
    assert service.audio == [bytearray(pcm)]
    assert service.updates[0]["audio"]["input"]["format"]["rate"] == 8000


async def test_errors_are_one_line_each(tmp_path: Path) -> None:
    code, _, err = await live(str(tmp_path / "none.wav"))
    assert (code, err) == (
        2,
        f"error: {tmp_path / 'none.wav'} cannot be read: No such file or directory\n",
    )


class EndlessInput:
    """Silence that comes until it is interrupted."""

    rate_hz = RATE_HZ

    async def pieces(self) -> AsyncGenerator[bytes]:
        while True:
            yield bytes(3200)
            await asyncio.sleep(0.001)


class BrokenInput:
    """A recording that cannot be read to its end."""

    rate_hz = RATE_HZ

    async def pieces(self) -> AsyncGenerator[bytes]:
        yield bytes(32_000)
        raise AudioError("it is broken")


async def test_interrupt_ends_the_audio_and_prints_the_last_text(
    service: ScriptedLiveService,
) -> None:
    service.segments = (SEGMENTS[0], ScriptedSegment(1100, 10**9, "再见。"))
    stream = io.StringIO()
    running = asyncio.create_task(run(service, EndlessInput(), stream))
    while not stream.getvalue():  # noqa: ASYNC110, a stream tells nobody
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
    assert await running == 0
    assert stream.getvalue() == "你好。\n再见。\n"


async def test_broken_recording_is_told_after_its_text(service: ScriptedLiveService) -> None:
    stream = io.StringIO()
    with pytest.raises(AudioError):
        await run(service, BrokenInput(), stream)
    assert "你好。" in stream.getvalue()


async def test_early_end_tells_the_position(
    service: ScriptedLiveService, capsys: pytest.CaptureFixture[str]
) -> None:
    service.going_away_ms = 1500
    assert await run(service, EndlessInput(), io.StringIO()) == FAILED
    assert "the session ended at 1.5 s: going away" in capsys.readouterr().err


async def test_segment_without_text_is_told(
    service: ScriptedLiveService, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.segments = (ScriptedSegment(100, 900, "你好。", "timeout"), SEGMENTS[1])
    stream = io.StringIO()
    assert await run(service, RecordingInput(recording, 50), stream) == PARTIAL
    assert stream.getvalue() == "再见。\n"
    assert "a segment has no text: it failed" in capsys.readouterr().err


async def test_service_that_is_not_there_is_told(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = ScriptedLiveService(url="http://127.0.0.1:9")
    assert await run(nobody, RecordingInput(recording, 50), io.StringIO()) == FAILED
    assert "no service answers" in capsys.readouterr().err


async def test_recording_is_sent_as_fast_as_it_was_spoken(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept_s: list[float] = []

    async def sleep(seconds: float) -> None:
        slept_s.append(seconds)

    monkeypatch.setattr("serve_app.cli.live_audio.asyncio.sleep", sleep)
    monkeypatch.setattr("serve_app.cli.live_audio.time.monotonic", lambda: 100.0)
    pieces = [len(piece) async for piece in RecordingInput(recording, 2.0).pieces()]
    assert pieces == [3200] * 20
    assert slept_s == pytest.approx([0.05 * number for number in range(1, 21)])


async def test_samples_of_a_pipe_are_read_to_the_end() -> None:
    pcm = bytes(range(200)) * 100
    pieces = [piece async for piece in PipeInput(io.BytesIO(pcm), RATE_HZ).pieces()]
    assert b"".join(pieces) == pcm


def test_open_text_grows_and_finished_text_stays() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80)
    with TerminalCaptions(console) as captions:
        captions.show(LivePartial("item_0", "你", "你"))
        captions.show(LivePartial("item_0", "好", "你好"))
        captions.show(LiveFinal("item_0", "你好。"))
        captions.show(LivePartial("item_1", "再", "再"))
    shown = stream.getvalue()
    assert "你好。\n" in shown
    assert shown.rstrip().endswith("再\x1b[0m")  # what did not end is left


def test_captions_fit_the_console() -> None:
    pipe = Console(file=io.StringIO())
    assert type(captions_for(pipe, as_json=False)) is Captions
    terminal = Console(file=io.StringIO(), force_terminal=True)
    assert isinstance(captions_for(terminal, as_json=False), TerminalCaptions)


def test_missing_library_of_the_microphone_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(ConfigurationError, match=r"paraserve\[microphone\]"):
        MicrophoneInput()


class PortAudioError(Exception):
    """As sounddevice raises it."""


class FakeStream:
    """Calls back once with silence."""

    def __init__(self, **options: object) -> None:
        self.options = options

    def __enter__(self) -> None:
        callback = self.options["callback"]
        assert callable(callback)
        callback(bytes(9600), 4800, None, None)

    def __exit__(self, *_: object) -> None:
        return None


def fake_sounddevice(device: dict[str, object] | None) -> SimpleNamespace:
    def query_devices(kind: str) -> dict[str, object]:
        if device is None:
            raise PortAudioError(f"Error querying device -1 ({kind})")
        return device

    return SimpleNamespace(
        query_devices=query_devices, PortAudioError=PortAudioError, RawInputStream=FakeStream
    )


def test_machine_without_a_microphone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(None))
    with pytest.raises(ConfigurationError, match="there is no microphone"):
        MicrophoneInput()


async def test_microphone_is_heard_at_its_own_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    device: dict[str, object] = {"default_samplerate": 48_000.0}
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(device))
    microphone = MicrophoneInput()
    pieces = microphone.pieces()
    assert microphone.rate_hz == 48_000
    assert await anext(pieces) == bytes(9600)
    await pieces.aclose()
