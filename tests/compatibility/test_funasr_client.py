"""The client of FunASR's WebSocket protocol on PyPI: `pip install -e '.[compat]'` brings it.

Its blocking client (0.1.6) takes its own lock a second time as it closes and hangs, whatever
the server; its asynchronous one is used here.
"""

from __future__ import annotations

import wave
from pathlib import Path

import pytest

from tests.api.live import live_service
from tests.fakes.live_sessions import SessionScript, spoken_segment

funasr_client = pytest.importorskip(
    "funasr_client", reason="needs the extra `compat`: pip install -e '.[compat]'"
)

SCRIPT = SessionScript(
    at_bytes=[(32_000, spoken_segment(0, ["你", "好", "。"], 0, 900))],
    after_finish=spoken_segment(1, ["再", "见", "。"], 1000, 1900),
)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "two-seconds.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(64_000))
    return path


async def test_client_transcribes_a_file(recording: Path) -> None:
    async with live_service(SCRIPT) as service:
        merged = await funasr_client.async_file_asr(
            recording,
            service.socket_url("/funasr", ""),
            hotwords={"阿里巴巴": 20},
            itn=True,
        )
        session = await service.session()
    assert merged["text"] == "你好。再见。"
    assert merged["wav_name"] == recording.name
    assert merged["is_final"]
    assert len(merged["timestamp"]) == 6
    assert len(session.received) == 64_000
    assert [word.text for word in session.options.recognition_options.hotwords] == ["阿里巴巴"]


async def test_client_is_told_the_text_twice(recording: Path) -> None:
    async with live_service(SCRIPT) as service:
        messages = [
            message
            async for message in funasr_client.async_file_asr_stream(
                recording, service.socket_url("/funasr", ""), mode="2pass"
            )
        ]
    online = [one["text"] for one in messages if one["mode"] == "2pass-online"]
    offline = [one["text"] for one in messages if one["mode"] == "2pass-offline"]
    assert "".join(online) == "".join(offline) == "你好。再见。"
    assert [one["is_final"] for one in messages].count(True) == 1


async def test_client_with_its_own_loop_receives_the_end(recording: Path) -> None:
    seen: list[str] = []

    async def note(message: dict[str, str]) -> None:
        seen.append(message["text"])

    async with live_service(SCRIPT) as service:
        client = funasr_client.AsyncFunASRClient(
            service.socket_url("/funasr", ""), mode="offline", audio_fs=16_000, callback=note
        )
        async with client:
            await client.send(bytes(64_000))
            await client.close()
    assert seen == ["你好。再见。"]
