"""`paraserve transcribe --speakers`, over HTTP and with the models in this process."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from serve_app.core.ports import SpeakerEmbedder
from serve_app.core.speakers import Diarization, Embeddings, SpeakerOptions, SpeakerWindows
from serve_app.inference import local, voices
from tests.cli.scripted_service import fields_of, serve_answer, transcribe
from tests.fakes.voices import FakeSpeakerEmbedder, diarization_of

CLIP = Path(__file__).parents[2] / "serve_app" / "packs" / "builtin" / "samples" / "clip.flac"
DIARIZED = {
    "task": "transcribe",
    "text": "你好。在吗。hello you",
    "segments": [
        {"speaker": "A", "text": "你好。"},
        {"speaker": "A", "text": "在吗。"},
        {"speaker": "B", "text": "hello"},
        {"speaker": "B", "text": "you"},
    ],
}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Bodies that a service was sent."""
    return serve_answer(monkeypatch, DIARIZED)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    file = tmp_path / "a.wav"
    file.write_bytes(b"RIFF")
    return file


@pytest.mark.parametrize(
    ("option", "fields"),
    [
        (["--speakers"], {"speaker_labels": "true"}),
        (["--speakers", "2"], {"num_speakers": "2"}),
        (["--speakers=2-4"], {"min_speakers": "2", "max_speakers": "4"}),
    ],
)
def test_text_has_a_line_for_each_turn(
    sent: list[str], recording: Path, option: list[str], fields: dict[str, str]
) -> None:
    # The option may stand before the file.
    result = transcribe("--url", "http://service", *option, str(recording))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == ["A: 你好。在吗。", "B: hello you"]
    (body,) = sent
    assert fields_of(body) | fields == fields_of(body)
    assert fields_of(body)["response_format"] == "diarized_json"


def test_json_is_the_diarized_one(sent: list[str], recording: Path) -> None:
    result = transcribe(str(recording), "--url", "http://service", "-f", "json", "--speakers")
    assert json.loads(result.stdout) == DIARIZED


@pytest.mark.parametrize("response_format", ["srt", "vtt"])
def test_subtitles_name_the_speakers(
    sent: list[str], recording: Path, response_format: str
) -> None:
    transcribe(str(recording), "--url", "http://s", "-f", response_format, "--speakers", "3")
    fields = fields_of(sent[0])
    assert fields["subtitle_speakers"] == "true"
    assert fields["num_speakers"] == "3"
    assert fields["response_format"] == response_format


def test_value_that_is_no_number_is_reported(recording: Path) -> None:
    result = transcribe(str(recording), "--speakers=many")
    assert "--speakers must be a number or a range" in str(result.exception)


def test_models_in_this_process_label_the_speakers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[SpeakerOptions] = []

    def load(settings: object) -> SimpleNamespace:
        return SimpleNamespace(engine=FakeSpeakerEmbedder())

    def diarize(
        windows: SpeakerWindows, options: SpeakerOptions, known: Embeddings | None
    ) -> Diarization:
        asked.append(options)
        return diarization_of(windows)

    monkeypatch.setattr(local, "load_speaker_embedder", load)
    monkeypatch.setattr(voices, "diarize", diarize)
    result = transcribe(str(CLIP), "-f", "verbose_json", "--speakers", "2")
    assert result.exit_code == 0, result.output
    body = json.loads(result.stdout)
    assert body["segments"]
    assert {one["speaker"] for one in body["segments"]} <= {"A", "B"}
    assert {one["speaker"] for one in body["words"]} <= {"A", "B"}
    assert asked == [SpeakerOptions(num_speakers=2)]


def test_fake_embedder_is_one() -> None:
    embedder: SpeakerEmbedder = FakeSpeakerEmbedder()
    assert embedder.cost(16_000) == 1
