"""`paraserve transcribe --speakers`, over HTTP and with the models in this process."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from serve_app.core.errors import InvalidParameter
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


def voice(tmp_path: Path, name: str, duration_s: float, level: int = 500) -> Path:
    """Writes a recording of a voice at 8 kHz, as of a telephone."""
    file = tmp_path / name
    tone = level * np.sin(np.arange(round(duration_s * 8_000)) / 5)
    soundfile.write(file, tone.astype(np.int16), 8_000)
    return file


def test_known_speakers_are_sent_with_their_voices(
    sent: list[str], recording: Path, tmp_path: Path
) -> None:
    anna, bob = voice(tmp_path, "a=1.wav", 3), voice(tmp_path, "b.flac", 9.9)
    result = transcribe(
        *(str(recording), "--url", "http://service", "-f", "srt"),
        *("--speaker", f"Anna={anna}", "--speaker", f"Bob B. = {bob}"),
    )
    assert result.exit_code == 0, result.output
    (body,) = sent
    names = re.findall(r'name="known_speaker_names\[\]"\r\n\r\n([^\r]*)', body)
    assert names == ["Anna", "Bob B."]
    urls = re.findall(r'name="known_speaker_references\[\]"\r\n\r\n([^\r]*)', body)
    contents = [base64.b64decode(url.removeprefix("data:audio/wav;base64,")) for url in urls]
    lengths_s = [soundfile.info(io.BytesIO(content)).duration for content in contents]
    assert lengths_s == pytest.approx([3, 9.9], abs=0.01)
    assert fields_of(body)["subtitle_speakers"] == "true"
    assert fields_of(body)["response_format"] == "srt"


def test_known_speakers_ask_for_lines_with_labels(
    sent: list[str], recording: Path, tmp_path: Path
) -> None:
    file = voice(tmp_path, "anna.wav", 3)
    result = transcribe(str(recording), "--url", "http://service", f"--speaker=Anna={file}")
    assert result.stdout.splitlines() == ["A: 你好。在吗。", "B: hello you"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["Anna"], "must be NAME=FILE, not 'Anna'"),
        (["=short.wav"], "must be NAME=FILE"),
        (["Anna="], "must be NAME=FILE"),
        (["Anna=nowhere.wav"], "nowhere.wav, which is not a file"),
        (["Anna=."], "which is not a file"),
        (["Anna=short.wav"], "must last 2 to 10 s; short.wav does not"),
        (["Anna=long.wav"], "must last 2 to 10 s; long.wav does not"),
        (["Anna=silent.wav"], "must be speech; silent.wav is silent"),
        (["Anna=text.wav"], "must be audio; text.wav cannot be used"),
        (["Anna=good.wav", "Anna=good.wav"], "must differ from each other"),
        ([f"{'a' * 65}=good.wav"], "1 to 64 printable characters"),
        ([f"{name}=good.wav" for name in "abcde"], "given 5 times; at most 4"),
    ],
)
def test_known_speaker_that_cannot_be_used_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch,
    sent: list[str],
    recording: Path,
    tmp_path: Path,
    given: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    voice(tmp_path, "good.wav", 3)
    voice(tmp_path, "short.wav", 1.9)
    voice(tmp_path, "long.wav", 10.5)
    voice(tmp_path, "silent.wav", 3, level=0)
    (tmp_path / "text.wav").write_text("not audio")
    options = [option for one in given for option in ("--speaker", one)]
    result = transcribe(str(recording), "--url", "http://service", *options)
    assert isinstance(result.exception, InvalidParameter)
    assert "--speaker" in str(result.exception)
    assert said in str(result.exception)
    assert sent == []


def test_models_in_this_process_name_known_speakers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[SpeakerOptions, Embeddings | None]] = []

    def load(settings: object) -> SimpleNamespace:
        return SimpleNamespace(engine=FakeSpeakerEmbedder())

    def diarize(
        windows: SpeakerWindows, options: SpeakerOptions, known: Embeddings | None
    ) -> Diarization:
        asked.append((options, known))
        return diarization_of(windows)

    monkeypatch.setattr(local, "load_speaker_embedder", load)
    monkeypatch.setattr(voices, "diarize", diarize)
    file = voice(tmp_path, "anna.wav", 3)
    result = transcribe(str(CLIP), "-f", "json", "--speaker", f"Anna={file}", "--speakers", "2")
    assert result.exit_code == 0, result.output
    ((options, known),) = asked
    assert options.num_speakers == 2
    assert [(one.name, len(one.pcm)) for one in options.known] == [("Anna", 48_000)]
    assert known is not None
    assert known.shape == (1, 2)


def test_fake_embedder_is_one() -> None:
    embedder: SpeakerEmbedder = FakeSpeakerEmbedder()
    assert embedder.cost(16_000) == 1
