"""Speaker labels of a batch job: the order, the manifest, the tables, and the results."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve_app.batch import punctuate_stage
from serve_app.batch.arguments import parse_arguments
from serve_app.batch.arrow_tables import (
    AudioEnd,
    RecognizedRecording,
    RecognizedWords,
    read_words,
    words_table,
)
from serve_app.batch.job import JobOrder, _with_speakers, job_settings
from serve_app.batch.manifest_rows import Row, RowProblem, item_of
from serve_app.batch.outputs import OutputStore
from serve_app.batch.punctuate_stage import FinishTask, TranscriptWriter, subtitles_of
from serve_app.batch.recognize_stage import LoopThread, RecognizeChunks
from serve_app.batch.records import BatchItem, PackIdentity
from serve_app.core.errors import ConfigurationError
from serve_app.core.records import (
    Chunk,
    PackRole,
    Pcm,
    Recognition,
    RequestContext,
    Stage,
    Token,
    Utterance,
)
from serve_app.core.speakers import Diarization, Embeddings, SpeakerOptions, SpeakerWindows
from serve_app.inference.voices import LocalVoices
from serve_app.settings import Settings
from serve_app.speakers.transcripts import NO_LABELS
from tests.fakes.voices import FakeSpeakerEmbedder, diarization_of, windows_of

CONTEXT = RequestContext("batch")


def chunk(index: int, start_ms: int, voice: int) -> Chunk:
    return Chunk(CONTEXT, index, start_ms, np.full(32_000, voice, np.int16))


def said(index: int, start_ms: int, voice: int, text: str) -> Utterance:
    tokens = tuple(
        Token(word, start_ms + i * 500, start_ms + (i + 1) * 500, 0.9)
        for i, word in enumerate(text)
    )
    voices = windows_of(chunk(index, start_ms, voice))
    return Utterance(index, start_ms, start_ms + 2000, "done", tokens, voices=voices)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[SpeakerOptions]:
    asked: list[SpeakerOptions] = []

    def diarize(
        windows: SpeakerWindows, options: SpeakerOptions, known: Embeddings | None
    ) -> Diarization:
        asked.append(options)
        return diarization_of(windows)

    monkeypatch.setattr(punctuate_stage, "diarize", diarize)
    return asked


MODELS: Mapping[PackRole, PackIdentity] = {
    "asr": PackIdentity("a", "1"),
    "speakers": PackIdentity("campplus", "2"),
}
HEARD = RecognizedRecording(
    4, (said(0, 0, 500, "你好"), said(1, 2000, 5000, "在吗")), 0.25, AudioEnd(2, 4000, 0.5, 100.0)
)


def finish(
    tmp_path: Path,
    item: BatchItem,
    stages: frozenset[Stage],
    recording: RecognizedRecording = HEARD,
) -> dict[str, Any]:
    settings = Settings.model_validate({"stages": ["asr", "speakers"]})
    store = OutputStore(str(tmp_path), ("srt", "txt"), subtitles=subtitles_of(settings))
    writer = TranscriptWriter(None, None, MODELS, store, speakers=SpeakerOptions(2))
    asyncio.run(writer.finish(FinishTask(item, "f", stages, recording)))
    (file,) = tmp_path.glob("transcripts/**/*.json")
    result: dict[str, Any] = json.loads(file.read_text())
    return result


ALL: frozenset[Stage] = frozenset({"asr", "speakers"})


def test_results_and_subtitles_name_the_speakers(
    tmp_path: Path, asked: list[SpeakerOptions]
) -> None:
    result = finish(tmp_path, BatchItem("a", "/a.wav"), ALL)
    assert [(one["speaker"], one["text"]) for one in result["segments"]] == [
        ("A", "你好"),
        ("B", "在吗"),
    ]
    assert [one["speaker"] for one in result["words"]] == ["A", "A", "B", "B"]
    assert result["models"]["speakers"] == {"name": "campplus", "checksum": "2"}
    (srt,) = tmp_path.glob("**/*.srt")
    assert "A: 你好" in srt.read_text()
    (txt,) = tmp_path.glob("**/*.txt")
    assert txt.read_text() == "你好在吗\n"
    assert asked == [SpeakerOptions(2)]


def test_recording_may_have_its_own_number_of_speakers(
    tmp_path: Path, asked: list[SpeakerOptions]
) -> None:
    finish(tmp_path, BatchItem("a", "/a.wav", speakers=SpeakerOptions(3)), ALL)
    assert asked == [SpeakerOptions(3)]


def test_recording_without_the_stage_has_no_labels(
    tmp_path: Path, asked: list[SpeakerOptions]
) -> None:
    result = finish(tmp_path, BatchItem("a", "/a.wav"), frozenset({"asr"}))
    assert "speaker" not in result["segments"][0]
    assert "speakers" not in result["models"]
    assert asked == []


def heard(*utterances: Utterance, notices: tuple[str, ...] = ()) -> RecognizedRecording:
    end = AudioEnd(len(utterances), 4000, 0.5, 100.0, notices=notices)
    return RecognizedRecording(4, utterances, 0.25, end)


def without_voices(utterance: Utterance) -> Utterance:
    return replace(utterance, voices=None)


def test_result_without_notices_has_no_warnings(
    tmp_path: Path, asked: list[SpeakerOptions]
) -> None:
    assert finish(tmp_path, BatchItem("a", "/a.wav"), ALL)["warnings"] == []


def test_result_has_the_notices_of_its_file(tmp_path: Path) -> None:
    notice = "The header announces more audio than there is."
    recording = heard(said(0, 0, 500, "你好"), notices=(notice,))
    result = finish(tmp_path, BatchItem("a", "/a.wav"), frozenset({"asr"}), recording)
    assert result["warnings"] == [notice]


def test_result_says_where_voices_were_not_embedded(
    tmp_path: Path, asked: list[SpeakerOptions]
) -> None:
    recording = heard(said(0, 0, 500, "你好"), without_voices(said(1, 2000, 5000, "在吗")))
    result = finish(tmp_path, BatchItem("a", "/a.wav"), ALL, recording)
    (warning,) = result["warnings"]
    assert "from 2.000 s to 4.000 s" in warning
    assert result["text"] == "你好在吗"
    assert result["segments"][0]["speaker"] == "A"


def test_result_without_any_voice_has_its_text_and_says_so(tmp_path: Path) -> None:
    recording = heard(*(without_voices(said(i, 2000 * i, 500, "好")) for i in range(3)))
    result = finish(tmp_path, BatchItem("a", "/a.wav"), ALL, recording)
    (warning,) = result["warnings"]
    assert "from 0.000 s to 2.000 s and in 2 more ranges" in warning
    assert result["text"] == "好好好"
    assert "speaker" not in result["segments"][0]


def test_result_whose_speakers_cannot_be_told_apart_has_its_text_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diarize(*arguments: object) -> Diarization:
        raise ArithmeticError("no convergence")

    monkeypatch.setattr(punctuate_stage, "diarize", diarize)
    result = finish(tmp_path, BatchItem("a", "/a.wav"), ALL)
    assert result["warnings"] == [NO_LABELS]
    assert result["text"] == "你好在吗"
    assert "speaker" not in result["segments"][0]


def test_recording_without_speech_has_no_warning(tmp_path: Path) -> None:
    assert finish(tmp_path, BatchItem("a", "/a.wav"), ALL, heard())["warnings"] == []


class BrokenEmbedder(FakeSpeakerEmbedder):
    def embed(self, batch: Sequence[Pcm]) -> list[Embeddings]:
        raise RuntimeError("a value is not finite")


def test_chunks_whose_voices_cannot_be_embedded_keep_their_words() -> None:
    stage = RecognizeChunks.__new__(RecognizeChunks)
    stage._loop = LoopThread("test-voices")
    stage._voices = LocalVoices(FakeSpeakerEmbedder())
    (windows,) = stage._embed([chunk(0, 1000, 500)])
    assert windows is not None
    assert windows.start_ms.tolist() == [1000, 1500]
    stage._voices = LocalVoices(BrokenEmbedder())
    assert stage._embed([chunk(0, 0, 500), chunk(1, 2000, 500)]) == [None, None]


def test_windows_pass_through_the_table_of_words() -> None:
    one = chunk(0, 1000, 500)
    recognition = Recognition((Token("一", 0, 100, 0.9),))
    table = words_table([(1, one, recognition, 0.5)], [], [windows_of(one)])
    (row,) = read_words(table)
    assert isinstance(row, RecognizedWords)
    assert row.utterance is not None
    voices = row.utterance.voices
    assert voices is not None
    assert voices.start_ms.tolist() == [1000, 1500]
    assert np.array_equal(voices.embeddings, windows_of(one).embeddings)


@pytest.mark.parametrize(
    ("value", "options"),
    [(2, SpeakerOptions(2)), ("3", SpeakerOptions(3)), ("2-4", SpeakerOptions(None, 2, 4))],
)
def test_manifest_names_the_number_of_speakers(value: Any, options: SpeakerOptions) -> None:
    item = item_of(Row(1, {"uri": "/a.wav", "num_speakers": value}), "/")
    assert isinstance(item, BatchItem)
    assert item.speakers == options
    assert item.metadata == {}


@pytest.mark.parametrize("value", ["many", 0, "33", "4-2", 2.5])
def test_manifest_with_a_wrong_number_of_speakers_is_refused(value: Any) -> None:
    problem = item_of(Row(1, {"uri": "/a.wav", "num_speakers": value}), "/")
    assert isinstance(problem, RowProblem)
    assert "num_speakers" in problem.problem


@pytest.mark.parametrize("name", ["known_speaker_names", "known_speaker_references[]"])
def test_manifest_that_names_speakers_is_refused(name: str) -> None:
    problem = item_of(Row(1, {"uri": "/a.wav", name: ["Anna"]}), "/")
    assert isinstance(problem, RowProblem)
    assert "cannot name speakers" in problem.problem


def test_command_line_that_names_speakers_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["in", "out", "--speaker", "Anna=anna.wav"], None)
    assert "cannot name speakers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "speakers"),
    [
        (["in", "out"], None),
        (["in", "out", "--speakers"], "any"),
        (["--speakers=2-4", "in", "out"], "2-4"),
        (["in", "out", "--speakers", "2"], "2"),
    ],
)
def test_command_line_asks_for_labels(arguments: list[str], speakers: str | None) -> None:
    assert parse_arguments(arguments, None).speakers == speakers


def test_order_of_labels_adds_the_stage_and_the_number() -> None:
    order = JobOrder("in", "out", ("asr",), speakers="2")
    settings, stages = _with_speakers(Settings(), order)
    changed = job_settings(settings, stages)
    assert changed.stages == ("asr", "speakers")
    assert changed.batch.speaker_options() == SpeakerOptions(2)
    settings, stages = _with_speakers(Settings(), JobOrder("in", "out", speakers="any"))
    assert stages == ("vad", "asr", "punctuation", "speakers")
    assert settings.batch.speaker_options() == SpeakerOptions()


def test_order_of_labels_with_a_wrong_number_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="speakers must be from 1 to 32"):
        _with_speakers(Settings(), JobOrder("in", "out", speakers="99"))


def test_setting_with_a_wrong_number_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a number or a range"):
        Settings.model_validate({"batch": {"speakers": "many"}})


def test_embedder_on_a_gpu_needs_one_in_the_recognizers_actors() -> None:
    settings = Settings.model_validate(
        {
            "stages": ["asr", "speakers"],
            "speaker_embedder": {"device": "cuda", "deployment": {"num_gpus": 0.1}},
        }
    )
    with pytest.raises(ConfigurationError, match=r"batch\.recognizers\.num_gpus is 0"):
        job_settings(settings, settings.stages)
