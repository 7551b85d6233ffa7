"""The command line, models in this process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from serve_app.cli import main
from serve_app.cli.main import app
from serve_app.packs.registry import REGISTERED
from serve_app.transcript.cer import character_error_rate
from tests.published import PUBLISHED_SEGMENTS_MS

SAMPLES = Path(__file__).parents[2] / "serve_app" / "packs" / "builtin" / "samples"
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
        (["transcribe", "x.wav", "--format", "xml"], 2, "response_format"),
        (["transcribe", "x.wav", "--hotwords", "/etc/passwd"], 2, "not file paths"),
        (["transcribe", "x.wav", "--model", "other"], 2, "not served"),
        (["transcribe", "x.wav", "--profile", "nope"], 2, "nope"),
        (["transcribe", "x.wav", "--set", "recognizer.device=tpu"], 2, "recognizer.device"),
        (["transcribe", "x.wav", "--set", "recognizr.device=cpu"], 2, "did you mean recognizer"),
        (["transcribe", "x.wav", "--set", "audio.max_upload_byte=1"], 2, "audio.max_upload_bytes?"),
        (["transcribe", "no [such] file.wav"], 1, "no recordings found in no [such] file.wav"),
        (["segments", str(SAMPLES / "demo.json")], 1, "error:"),
        (["transcribe", "x.wav", "--set", "recognizer.pack=nothing"], 2, "nothing"),
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
        main.main()
    assert stopped.value.code == code
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


def test_folders_are_kept_and_nothing_is_overwritten(runner: CliRunner, tmp_path: Path) -> None:
    for name in ("in/a/call.flac", "in/b/call.flac", "other/call.flac", "in/.hidden/call.flac"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SAMPLES / "clip.flac", tmp_path / name)
    shutil.copy(SAMPLES / "clip.flac", tmp_path / "in" / "a" / "._call.flac")
    out = tmp_path / "out"
    named = [str(tmp_path / "in"), str(tmp_path / "other" / "call.flac")]
    result = runner.invoke(app, ["transcribe", *named, "-o", str(out)])
    assert result.exit_code == 0, result.output
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert written == ["a/call.flac.txt", "b/call.flac.txt", "call.flac.txt"]


@pytest.mark.slow
def test_output_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "LC_ALL": "POSIX",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    out = tmp_path / "out"
    clip = str(SAMPLES / "clip.flac")
    for arguments in (["-f", "srt", "-o", str(out)], []):
        done = subprocess.run(
            [sys.executable, "-m", "serve_app.cli.main", "transcribe", clip, *arguments],
            env=environment,
            capture_output=True,
            check=True,
            timeout=300,
        )
    assert CLIP_TEXT[:2] in (out / "clip.flac.srt").read_text(encoding="utf-8")
    assert character_error_rate(CLIP_TEXT, done.stdout.decode("utf-8")) <= 0.1


def test_real_recording_gets_a_warning_from_a_demo_model(runner: CliRunner, tmp_path: Path) -> None:
    copied = tmp_path / "meeting.flac"
    shutil.copy(SAMPLES / "clip.flac", copied)
    assert "demo model" in runner.invoke(app, ["transcribe", str(copied)]).stderr
    assert "demo" not in runner.invoke(app, ["transcribe", str(SAMPLES / "clip.flac")]).stderr


def test_help_and_version_need_no_heavy_import() -> None:
    script = (
        "import sys; from typer.testing import CliRunner; from serve_app.cli.main import app\n"
        "for arguments in (['--help'], ['-h'], ['--version']):\n"
        "    assert CliRunner().invoke(app, arguments).exit_code == 0\n"
        "heavy = {'torch', 'numpy', 'ray', 'pydantic', 'fastapi', 'httpx'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"


def test_listing_is_whole_in_a_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serve_app.cli.main", "models", "list"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert all(name in done.stdout for name in REGISTERED)
    assert "…" not in done.stdout
