"""The command line, models in this process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from serve_app import cli
from serve_app.cli import app
from serve_app.pipeline.scoring import character_error_rate
from tests.published import PUBLISHED_SEGMENTS_MS

SAMPLES = Path(__file__).parents[1] / "serve_app" / "packs" / "builtin" / "samples"
CLIP_TEXT = json.loads((SAMPLES / "clip.json").read_text(encoding="utf-8"))[0]["text"]


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


def test_segments_are_the_published_ones(runner: CliRunner, vad_example: Path) -> None:
    result = runner.invoke(app, ["segments", str(vad_example)])
    assert json.loads(result.stdout) == PUBLISHED_SEGMENTS_MS


def test_file_is_transcribed_as_text(runner: CliRunner) -> None:
    result = runner.invoke(app, ["transcribe", str(SAMPLES / "clip.flac")])
    assert result.exit_code == 0
    assert character_error_rate(CLIP_TEXT, result.stdout) <= 0.1


@pytest.mark.parametrize(("name", "start"), [("srt", "1\n00:00"), ("vtt", "WEBVTT\n")])
def test_file_is_transcribed_as_subtitles(runner: CliRunner, name: str, start: str) -> None:
    result = runner.invoke(app, ["transcribe", str(SAMPLES / "clip.flac"), "--format", name])
    assert result.stdout.startswith(start)


def test_stages_are_chosen(runner: CliRunner) -> None:
    file = str(SAMPLES / "clip.flac")
    result = runner.invoke(app, ["transcribe", file, "--stages", "asr"])
    assert result.stdout.strip()
    assert not set("，。？、") & set(result.stdout)


def test_directories_and_globs_write_a_file_each_and_bad_ones_fail_alone(
    runner: CliRunner, tmp_path: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    shutil.copy(SAMPLES / "clip.flac", folder / "a.flac")
    soundfile.write(folder / "silence.wav", np.zeros(16_000), 16_000)
    (folder / "broken.wav").write_text("no audio")
    (folder / "notes.txt").write_text("not taken from a directory")
    arguments = ["transcribe", str(folder), str(folder / "*.flac"), "-o", str(out), "-f", "json"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1
    assert sorted(path.name for path in out.iterdir()) == ["a.flac.json", "silence.wav.json"]
    assert json.loads((out / "silence.wav.json").read_text())["text"] == ""
    assert "broken.wav" in result.stderr


def test_nothing_found_is_an_error(runner: CliRunner, tmp_path: Path) -> None:
    assert runner.invoke(app, ["transcribe", str(tmp_path / "*.wav")]).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["transcribe", "x.wav", "--format", "xml"], 1, "response_format"),
        (["transcribe", "x.wav", "--hotwords", "/etc/passwd"], 1, "not paths"),
        (["transcribe", "x.wav", "--model", "other"], 1, "not served"),
        (["transcribe", "x.wav", "--profile", "nope"], 1, "nope"),
        (["transcribe", "x.wav", "--set", "recognizer.device=tpu"], 2, "recognizer.device"),
        (["transcribe", "x.wav", "--set", "recognizer.pack=nothing"], 1, "nothing"),
    ],
)
def test_mistake_is_one_line_not_a_traceback(
    arguments: list[str],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["paraserve", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == code
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
