"""`paraserve keys`."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from serve_app.cli.main import app
from serve_app.core.errors import ConfigurationError
from serve_app.settings.keys import KEY_PREFIX, hash_of, read_keys
from serve_app.settings.webhook_secrets import read_webhook_secrets


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


def make(runner: CliRunner, file: Path, *options: str) -> str:
    result = runner.invoke(app, ["keys", "new", "--name", "team-a", "--file", str(file), *options])
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def test_new_key_is_printed_once_and_only_its_hash_is_kept(
    runner: CliRunner, tmp_path: Path
) -> None:
    file = tmp_path / "keys.yaml"
    options = ("--weight", "2", "--expires", "2030-01-01", "--max-running", "4")
    quota = ("--max-audio-hours", "100")
    key = make(runner, file, *options, *quota)
    assert key.startswith(KEY_PREFIX)
    assert key not in file.read_text()
    (entry,) = read_keys(file)
    assert (entry.name, entry.sha256, entry.weight) == ("team-a", hash_of(key), 2.0)
    assert entry.expires is not None
    assert entry.expires.isoformat() == "2030-01-01T00:00:00+00:00"
    assert entry.limits.max_running == 4
    assert entry.limits.max_audio_s_per_month == 360_000


def test_second_key_of_the_same_name_stands_beside_the_first(
    runner: CliRunner, tmp_path: Path
) -> None:
    file = tmp_path / "keys.yaml"
    keys = {make(runner, file) for _ in range(2)}
    assert {entry.sha256 for entry in read_keys(file)} == {hash_of(key) for key in keys}


def test_without_a_file_the_entry_is_printed(runner: CliRunner) -> None:
    result = runner.invoke(app, ["keys", "new", "--name", "a"])
    assert hash_of(result.stdout.strip()) in result.stderr


def test_wrong_name_is_refused(runner: CliRunner) -> None:
    assert runner.invoke(app, ["keys", "new", "--name", "a b"]).exit_code == 2


def test_list_shows_no_hash(runner: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    key = make(runner, file)
    result = runner.invoke(app, ["keys", "list", str(file)])
    assert "team-a" in result.stdout
    assert "active" in result.stdout
    assert hash_of(key)[:8] not in result.stdout


def test_check_tells_whose_a_key_is(runner: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    key = make(runner, file)
    assert "1 active" in runner.invoke(app, ["keys", "check", str(file)]).stdout
    good = runner.invoke(app, ["keys", "check", str(file), "--key"], input=key)
    assert (good.exit_code, good.stdout) == (0, "team-a: active\n")
    bad = runner.invoke(app, ["keys", "check", str(file), "--key"], input="psk_other")
    assert bad.exit_code == 1


def test_broken_file_is_reported(runner: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text("keys: 5")
    result = runner.invoke(app, ["keys", "check", str(file)])
    assert isinstance(result.exception, ConfigurationError)


def webhook_secret(runner: CliRunner, *arguments: str) -> Result:
    return runner.invoke(app, ["keys", "webhook-secret", *arguments])


def test_webhook_secret_is_printed_once_rotated_and_dropped(
    runner: CliRunner, tmp_path: Path
) -> None:
    file = tmp_path / "secrets.yaml"
    first, second = (
        webhook_secret(runner, "team-a", "--file", str(file), *options).stdout.strip()
        for options in ((), ("--rotate",))
    )
    assert read_webhook_secrets(file) == {"team-a": (second, first)}
    dropped = webhook_secret(runner, "team-a", "--file", str(file), "--drop-old")
    assert (dropped.stdout, dropped.stderr) == ("", "Dropped the old secret.\n")
    assert read_webhook_secrets(file) == {"team-a": (second,)}


def test_without_a_file_the_entry_of_the_webhook_secret_is_printed(
    runner: CliRunner, tmp_path: Path
) -> None:
    result = webhook_secret(runner, "team-a")
    entry = "\n".join(result.stderr.splitlines()[1:-1])
    (tmp_path / "secrets.yaml").write_text(entry)
    assert read_webhook_secrets(tmp_path / "secrets.yaml") == {"team-a": (result.stdout.strip(),)}


def test_rotation_of_a_webhook_secret_needs_the_file(runner: CliRunner) -> None:
    assert webhook_secret(runner, "team-a", "--rotate").exit_code == 2


def test_webhook_secret_that_exists_is_kept(runner: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "secrets.yaml"
    webhook_secret(runner, "team-a", "--file", str(file))
    again = webhook_secret(runner, "team-a", "--file", str(file))
    assert isinstance(again.exception, ConfigurationError)
