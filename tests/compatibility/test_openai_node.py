"""OpenAI's client for JavaScript, as its package registry has it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from serve_app.api.service import TranscriptionJob
from serve_app.core.errors import CorruptAudio
from serve_app.transcript.transcript import TranscriptEvent
from tests.compatibility.conftest import TEXT, ListeningService
from tests.fakes.service import FakeService

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent / "node" / "transcribe.mjs"
PACKAGE = "openai@7"
_INSTALL_S = 180
_ASK_S = 120


@pytest.fixture(scope="session")
def node_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with the client installed and the script in it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs node and npm (Node.js 20 or later) on the PATH")
    directory = tmp_path_factory.mktemp("node")
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(directory), PACKAGE]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_INSTALL_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npm cannot install {PACKAGE}: {error}")
    shutil.copy(SCRIPT, directory)
    return directory


class BreakingService(ListeningService):
    """Loses some recordings in the middle."""

    async def transcribe(self, job: TranscriptionJob) -> AsyncGenerator[TranscriptEvent]:
        async for event in super().transcribe(job):
            yield event
            if job.audio.tobytes() == b"breaks off":
                raise CorruptAudio("bad frame")


@pytest.fixture
def service() -> FakeService:
    return BreakingService()


@pytest.fixture
def answers(node_directory: Path, api_url: str) -> Any:
    command = ["node", SCRIPT.name, api_url]
    ran = subprocess.run(
        command, cwd=node_directory, capture_output=True, text=True, timeout=_ASK_S, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_every_answer_is_taken(answers: Any) -> None:
    assert answers["json"]["text"] == TEXT
    assert answers["json"]["usage"] == {"type": "duration", "seconds": 2}
    assert [word["word"] for word in answers["verbose"]["words"]] == list("你好再见")
    assert answers["text"] == f"{TEXT}\n"
    assert answers["srt"].startswith("1\n00:00:00,000")
    assert answers["vtt"].startswith("WEBVTT\n")
    assert [event["type"] for event in answers["events"]] == [
        "transcript.text.delta",
        "transcript.text.delta",
        "transcript.text.done",
    ]
    assert answers["models"] == ["paraformer-demo", "whisper-1"]
    assert answers["refused"] == {
        "name": "BadRequestError",
        "status": 400,
        "code": "unknown_audio_format",
    }
    assert answers["broken"] == {"name": "APIError", "status": None, "code": "corrupt_audio"}
