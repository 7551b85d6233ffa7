"""`paraserve logs`, on a directory as a run leaves it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serve_app.cli import logs as module
from serve_app.cli.logs import LogFolder, latest_run, logs_directory
from serve_app.cli.main import app
from serve_app.core.errors import ConfigurationError
from serve_app.hosting.processes import Process, process_of
from serve_app.hosting.run_directory import RunDirectory

WriteLines = Callable[..., None]


def run_of(root: Path, name: str, owner: Process) -> RunDirectory:
    run = RunDirectory(root / name)
    logs_directory(run).mkdir(parents=True)
    (run.path / "owner.json").write_text(json.dumps(asdict(owner)))
    return run


def line(time_s: float, message: str, **fields: object) -> str:
    return json.dumps(
        {
            "levelname": "INFO",
            "message": message,
            "worker_id": "w",
            "timestamp_ns": int(time_s * 1e9),
            **fields,
        }
    )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.setattr(module, "runs_root", lambda: tmp_path)
    run = run_of(tmp_path, "dead", Process(2**22 - 1, 1))
    folder = logs_directory(run)
    (folder / "replica_Ingress.log").write_text(
        line(3.0, "transcription request", paraserve_request_id="r1", status=200)
        + "\n"
        + line(5.0, "transcription request", paraserve_request_id="r2", status=400)
        + "\n"
    )
    (folder / "replica_Recognizer.log").write_text(
        line(4.0, "chunk failed", paraserve_request_id="r1", levelname="ERROR", chunk=3)
        + "\nnot JSON\n"
    )
    return run


def logs(*arguments: str) -> list[str]:
    result = CliRunner().invoke(app, ["logs", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_lines_of_all_replicas_come_by_time(run: RunDirectory) -> None:
    shown = logs()
    assert [each.split(" ", 1)[1] for each in shown] == [
        "INFO r1 transcription request status=200",
        "ERROR r1 chunk failed chunk=3",
        "ERROR not JSON",
        "INFO r2 transcription request status=400",
    ]


def test_one_request_is_followed_through_the_stages(run: RunDirectory) -> None:
    assert len(logs("r1")) == 2
    assert len(logs("r1", "--level", "error")) == 1


def test_json_is_as_it_was_written(run: RunDirectory) -> None:
    assert json.loads(logs("--json")[0])["status"] == 200


def test_unknown_id_is_an_error(run: RunDirectory) -> None:
    result = CliRunner().invoke(app, ["logs", "r9"])
    assert "has the id r9" in str(result.exception)


def test_running_service_comes_before_a_newer_dead_one(tmp_path: Path) -> None:
    own = process_of(os.getpid())
    assert own is not None
    up = run_of(tmp_path, "up", own)
    dead = run_of(tmp_path, "dead", Process(2**22 - 1, 1))
    os.utime(dead.path, (2e9, 2e9))
    assert latest_run([up, dead]) == up
    with pytest.raises(ConfigurationError, match="no logs found"):
        latest_run([])


def test_half_a_line_waits_for_its_rest(run: RunDirectory) -> None:
    folder = LogFolder(logs_directory(run))
    assert len(list(folder.new_lines())) == 4
    path = logs_directory(run) / "replica_Ingress.log"
    whole = line(6.0, "late")
    with path.open("a") as file:
        file.write(whole[:10])
        file.flush()
        assert not list(folder.new_lines())
        file.write(whole[10:] + "\n")
    assert [each.fields["message"] for each in folder.new_lines()] == ["late"]
