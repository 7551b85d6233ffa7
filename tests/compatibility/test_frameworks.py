"""Frameworks that speak OpenAI's API: `pip install -e '.[compat]'` brings them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.compatibility.conftest import TEXT
from tests.service.requests import audio_file, read_audio

# What they warn of is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

# litellm would ask for its table of prices over the internet as it is imported.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

_MISSING = "needs the extra `compat`: pip install -e '.[compat]'"


def test_litellm_transcribes(api_url: str, recording: bytes) -> None:
    litellm = pytest.importorskip("litellm", reason=_MISSING)
    answer = litellm.transcription(
        model="openai/whisper-1",
        file=("a.flac", recording),
        api_base=f"{api_url}/v1",
        api_key="unused",
    )
    assert answer.text == TEXT


@pytest.mark.parametrize("response_format", [None, "json"])
def test_litellm_streams(api_url: str, recording: bytes, response_format: str | None) -> None:
    """Without a format it asks for `verbose_json`, which is answered in one piece."""
    litellm = pytest.importorskip("litellm", reason=_MISSING)
    given = {} if response_format is None else {"response_format": response_format}
    answer = litellm.transcription(
        model="openai/whisper-1",
        file=("a.flac", recording),
        stream=True,
        api_base=f"{api_url}/v1",
        api_key="unused",
        **given,
    )
    text = answer.text if hasattr(answer, "text") else list(answer)[-1].text
    assert text == TEXT


def test_langchain_transcribes(api_url: str, recording: bytes, tmp_path: Path) -> None:
    audio = pytest.importorskip(
        "langchain_community.document_loaders.parsers.audio", reason=_MISSING
    )
    documents = pytest.importorskip("langchain_core.documents.base", reason=_MISSING)
    pytest.importorskip("pydub", reason=_MISSING)
    if shutil.which("ffmpeg") is None:
        pytest.skip("pydub, which langchain cuts recordings with, needs the command ffmpeg")
    path = tmp_path / "a.wav"
    path.write_bytes(audio_file(read_audio(recording)))
    parser = audio.OpenAIWhisperParser(api_key="unused", base_url=f"{api_url}/v1")
    found = list(parser.lazy_parse(documents.Blob.from_path(path)))
    assert [document.page_content for document in found] == [TEXT]
