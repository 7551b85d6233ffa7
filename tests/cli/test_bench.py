from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serve_app.cli.main import app
from serve_app.core.errors import ConfigurationError
from serve_app.packs import PackContents
from tests.fakes.tiny_packs import write_paraformer


@pytest.fixture
def packs(tmp_path: Path, vad_pack: PackContents) -> list[str]:
    tiny = write_paraformer(tmp_path / "tiny")
    return [
        f"--packs=vad={vad_pack.directory}",
        f"--packs=asr={tiny}",
        f"--packs=small_asr={tiny}",
        "--packs=punctuation=ct-punc-demo",
        "--packs=small_punctuation=ct-punc-demo",
        f"--synth-dir={tmp_path / 'synth'}",
        "--seconds=3",
    ]


@pytest.mark.slow
def test_json_has_a_record_a_row(packs: list[str]) -> None:
    arguments = ["bench", "memory", *packs, "--row=asr", "--row=onnx-asr", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    asr, onnx = json.loads(result.stdout)
    assert (asr["key"], onnx["key"]) == ("asr", "onnx-asr")
    assert asr["rss_bytes"] > 0
    assert onnx["rtfx"] > 0


@pytest.mark.slow
def test_table_names_the_machine(packs: list[str]) -> None:
    result = CliRunner().invoke(app, ["bench", "memory", *packs, "--row=asr"])
    assert result.exit_code == 0, result.output
    assert "cores; Python" in result.stdout
    assert "| ASR only | tiny |" in result.stdout


def test_unknown_row_lists_the_rows(packs: list[str]) -> None:
    result = CliRunner().invoke(app, ["bench", "memory", *packs, "--row=none"])
    assert isinstance(result.exception, ConfigurationError)
    assert "small-asr" in str(result.exception)


@pytest.mark.parametrize("given", ["asr", "asr=", "model=x"])
def test_role_that_is_none_is_refused(given: str, tmp_path: Path) -> None:
    arguments = ["bench", "memory", f"--packs={given}", f"--synth-dir={tmp_path}"]
    assert CliRunner().invoke(app, arguments).exit_code in (1, 2)
