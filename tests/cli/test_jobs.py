"""`paraserve jobs`, `paraserve usage` and `paraserve transcribe --job`, without a service."""

from __future__ import annotations

import asyncio
import importlib
import json
import random
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from serve_app.cli.main import app
from serve_app.cli.service_options import store_imports
from serve_app.client import jobs as jobs_module
from serve_app.client import uploads as uploads_module
from serve_app.core.errors import ConfigurationError
from serve_app.core.job_errors import StoreUnavailable
from serve_app.jobs.opening import open_store
from serve_app.jobs.records import Usage
from serve_app.settings.jobs import JobSettings
from tests.cli.scripted_service import fields_of
from tests.client.job_service import JobService, event, job_json, refusal

NO_ROUTE = {"error": {"code": "not_found", "message": "Not Found"}}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> JobService:
    """A service without jobs at first; nobody waits for it."""
    scripted = JobService()
    original = httpx.Client.__init__

    def init(self: httpx.Client, **options: object) -> None:
        original(self, **{**options, "transport": scripted.transport()})  # type: ignore[arg-type]

    monkeypatch.setattr(httpx.Client, "__init__", init)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    for variable in ("PARASERVE_URL", "PARASERVE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    return scripted


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    file = tmp_path / "meeting.wav"
    file.write_bytes(random.Random(7).randbytes(2000))
    return file


def test_list_shows_state_and_progress(service: JobService) -> None:
    service.jobs = {
        one["id"]: one
        for one in (
            job_json("job_1", "running", metadata={"case": "[7]"}),
            job_json("job_2", "queued", position=3),
            job_json("job_3", "completed"),
        )
    }
    lines = run("jobs", "list").stdout.splitlines()
    assert "0:30 of 1:00 (50 %)" in lines[3]
    assert "case=[7]" in lines[3]
    assert "queued, 3 before it" in lines[4]
    assert "completed" in lines[5]
    assert len(run("jobs", "list", "--limit", "2").stdout.splitlines()) == 6
    listed = run("jobs", "list", "--json", "--status", "running", "--status", "queued")
    assert [one["id"] for one in json.loads(listed.stdout)] == ["job_1", "job_2", "job_3"]
    assert service.queries[-1]["status"] == "running,queued"


def test_state_that_does_not_exist_is_refused(service: JobService) -> None:
    assert run("jobs", "list", "--status", "done").exit_code == 2
    assert service.requests == []


def test_show_prints_error_and_webhook(service: JobService) -> None:
    service.jobs["job_1"] = job_json(
        "job_1",
        "failed",
        finished_at=1_700_000_100,
        error={"code": "audio_decode_failed", "message": "no audio", "param": "file"},
        webhook={"url": "https://a.example/h", "status": "undelivered", "num_attempts": 10},
        metadata={"case": "7"},
    )
    shown = run("jobs", "show", "job_1").stdout
    assert "audio_decode_failed: no audio" in shown
    assert "https://a.example/h: undelivered (attempts: 10)" in shown
    assert "metadata case" in shown
    assert json.loads(run("jobs", "show", "job_1", "--json").stdout) == service.jobs["job_1"]


def test_result_is_printed_or_written(service: JobService, tmp_path: Path) -> None:
    service.jobs["job_1"] = job_json("job_1", "completed")
    printed = run("jobs", "result", "job_1")
    assert (printed.exit_code, printed.stdout) == (0, "你好。\n")
    assert "warning: demo" in printed.stderr
    target = tmp_path / "below" / "a.srt"
    options = ("-f", "srt", "--subtitle", "max_chars=16", "-o", str(target))
    assert run("jobs", "result", "job_1", *options).exit_code == 0
    assert target.read_text(encoding="utf-8") == "你好。\n"
    assert dict(service.queries[-1]) == {"response_format": "srt", "subtitle_max_chars": "16"}


def test_result_with_gaps_has_its_own_exit_code(service: JobService) -> None:
    service.jobs["job_1"] = job_json("job_1", "completed")
    partial = httpx.Response(200, text="你好。", headers={"X-Paraserve-Partial": "1.5-2.0"})
    service.faults["GET", "/v1/jobs/job_1/result"] = [partial]
    result = run("jobs", "result", "job_1")
    assert (result.exit_code, result.stdout) == (3, "你好。\n")


def test_result_that_is_not_there_yet_is_an_error(service: JobService) -> None:
    service.jobs["job_1"] = job_json("job_1")
    result = run("jobs", "result", "job_1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: it is job_not_finished\n"


def test_jobs_are_cancelled_and_deleted_one_by_one(service: JobService) -> None:
    service.jobs = {name: job_json(name, "running") for name in ("job_1", "job_2")}
    cancelled = run("jobs", "cancel", "job_1", "job_9", "job_2")
    assert cancelled.exit_code == 1
    assert cancelled.stdout == "job_1: cancelled\njob_2: cancelled\n"
    assert cancelled.stderr == "failed: job_9: it is job_not_found\n"
    deleted = run("jobs", "delete", "job_1", "job_2")
    assert (deleted.exit_code, service.jobs) == (0, {})


def test_webhook_is_delivered_again(service: JobService) -> None:
    hook = {"url": "https://a.example/h", "status": "pending", "num_attempts": 0}
    service.jobs["job_1"] = job_json("job_1", "completed", webhook=hook)
    assert run("jobs", "webhook", "job_1").stdout == "job_1: https://a.example/h pending\n"


def test_watch_ends_with_the_job(service: JobService) -> None:
    service.jobs["job_1"] = job_json("job_1")
    service.events = [event(job_json("job_1", "running")) + event(job_json("job_1", "completed"))]
    watched = run("jobs", "watch", "job_1")
    assert (watched.exit_code, watched.stderr) == (0, "job_1: completed\n")
    service.jobs["job_1"] = job_json("job_1", "cancelled")
    watched = run("jobs", "watch", "job_1")
    assert (watched.exit_code, watched.stderr) == (1, "error: job_1: the job is cancelled\n")


@pytest.mark.parametrize(
    "command",
    [
        ("jobs", "list"),
        ("jobs", "show", "job_1"),
        ("jobs", "result", "job_1"),
        ("jobs", "watch", "job_1"),
        ("jobs", "cancel", "job_1"),
        ("jobs", "delete", "job_1"),
        ("jobs", "webhook", "job_1"),
        ("usage",),
    ],
)
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (httpx.ConnectError("refused"), "no service answers at http://localhost:8000"),
        (httpx.Response(404, json=NO_ROUTE), "has no jobs; its setting jobs.enabled"),
        (refusal(401, "invalid_api_key"), "give --api-key-file or $PARASERVE_API_KEY"),
        (httpx.Response(200, text="<html>"), "is not Paraserve"),
    ],
)
def test_error_of_a_call_is_one_line(
    service: JobService, command: tuple[str, ...], fault: httpx.Response, reason: str
) -> None:
    service.always = fault
    result = run(*command)
    if command[1:2] == ("delete",) and "not Paraserve" in reason:
        return  # its answer has no content
    if command[1:2] == ("result",) and "not Paraserve" in reason:
        return  # its answer is text
    assert result.exit_code == 1
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_wrong_address_is_wrong_usage(service: JobService) -> None:
    result = run("jobs", "list", "--url", "ftp://a")
    assert isinstance(result.exception, ConfigurationError)
    assert service.requests == []


@pytest.mark.parametrize("variable", ["PARASERVE_API_KEY", "OPENAI_API_KEY"])
def test_key_comes_from_the_environment_or_a_file(
    service: JobService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    monkeypatch.setenv(variable, "psk_environment")
    run("jobs", "list")
    assert service.headers[-1]["Authorization"] == "Bearer psk_environment"
    (tmp_path / "key").write_text("psk_file\n")
    run("jobs", "list", "--api-key-file", str(tmp_path / "key"))
    assert service.headers[-1]["Authorization"] == "Bearer psk_file"


def test_usage_is_printed_as_a_table_with_the_quota_or_as_csv(service: JobService) -> None:
    service.usage = {
        "object": "usage",
        "month": "2026-11",
        "key": "team-a",
        "audio_s": 5400.0,
        "num_requests": 3,
        "data": [
            {"kind": "job", "audio_s": 3600.0, "num_requests": 1},
            {"kind": "request", "audio_s": 1800.0, "num_requests": 2},
        ],
        "max_audio_s": 36000.0,
        "until": "2026-12-01",
    }
    table = run("usage", "--month", "2026-11")
    assert "1.00" in table.stdout
    assert table.stderr == "1.50 of 10 hours of audio until 2026-12-01\n"
    assert service.queries[-1]["month"] == "2026-11"
    service.usage["max_audio_s"] = None
    assert run("usage", "--csv").stdout == (
        "key,month,kind,audio_s,requests\n"
        "team-a,2026-11,job,3600.000,1\n"
        "team-a,2026-11,request,1800.000,2\n"
    )
    assert run("usage").stderr == "1.50 hours of audio, without a quota\n"


def test_usage_of_something_else_than_a_month_is_refused(service: JobService) -> None:
    assert run("usage", "--month", "2026-13").exit_code == 2
    assert run("usage", "--set", "jobs.enabled=true").exit_code == 2
    assert service.requests == []


def test_file_is_transcribed_as_a_job(service: JobService, recording: Path, tmp_path: Path) -> None:
    service.events = [event(job_json("job_1", "running")) + event(job_json("job_1", "completed"))]
    service.after_request = lambda method, path: (
        service.created and service.jobs.update(job_1=job_json("job_1", "completed"))
    )
    options = ("-f", "srt", "-o", str(tmp_path / "out"), "--itn", "--speakers", "2")
    result = run("transcribe", str(recording), "--job", *options)
    assert result.exit_code == 0
    assert (tmp_path / "out" / "meeting.wav.srt").read_text(encoding="utf-8") == "你好。\n"
    fields = fields_of(service.created[0].decode("latin-1"))
    assert fields["response_format"] == "srt"
    assert (fields["itn"], fields["num_speakers"]) == ("true", "2")
    assert service.queries[-1]["response_format"] == "srt"


def test_large_file_is_uploaded_in_parts(
    service: JobService, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "RESUMABLE_BYTES", 1000)
    monkeypatch.setattr(uploads_module, "PART_BYTES", 300)
    service.faults["PATCH", "/v1/uploads/upl_1"] = [httpx.ReadError("reset")]
    service.events = [event(job_json("job_1", "completed"))]
    service.after_request = lambda method, path: (
        service.jobs and service.jobs.update(job_1=job_json("job_1", "completed"))
    )
    result = run("transcribe", str(recording), "--job")
    assert (result.exit_code, result.stdout) == (0, "你好。\n")
    assert service.uploads["upl_1"] == recording.read_bytes()


def test_each_file_of_several_becomes_a_job_before_any_is_waited_for(
    service: JobService, recording: Path
) -> None:
    other = recording.with_name("other.wav")
    other.write_bytes(b"RIFF")
    service.events = [
        event(
            job_json(
                "job_1", "failed", error={"code": "audio_decode_failed", "message": "no audio"}
            )
        ),
        event(job_json("job_2", "completed")),
    ]
    service.faults["GET", "/v1/jobs/job_2/result"] = [httpx.Response(200, text="二。")]
    result = run("transcribe", str(recording), str(other), "--job")
    assert result.exit_code == 1
    assert f"failed: {recording}: no audio" in result.stderr
    assert result.stdout == f"==> {other} <==\n二。\n"
    made = [path for method, path in service.requests if method == "POST"]
    assert made == ["/v1/jobs", "/v1/jobs"]
    assert service.requests.index(("POST", "/v1/jobs")) < 3


def test_interrupted_command_leaves_the_job_and_says_how_to_get_its_result(
    service: JobService, recording: Path
) -> None:
    def interrupt(method: str, path: str) -> None:
        if path.endswith("/events"):
            raise KeyboardInterrupt

    service.after_request = interrupt
    result = run("transcribe", str(recording), "--job", "-f", "srt", "--url", "localhost:9")
    assert result.exit_code in (1, 130)
    assert f"{recording}: the job goes on" in result.stderr
    assert "paraserve jobs result job_1 -f srt --url localhost:9" in result.stderr
    assert service.jobs["job_1"]["status"] == "queued"
    assert not [path for method, path in service.requests if method == "DELETE"]


def test_job_of_a_service_without_jobs_fails_clearly(service: JobService, recording: Path) -> None:
    service.faults["POST", "/v1/jobs"] = [httpx.Response(404, json=NO_ROUTE)]
    result = run("transcribe", str(recording), "--job")
    assert result.exit_code == 1
    assert "has no jobs; its setting jobs.enabled turns them on" in result.stderr


def test_operator_prints_the_usage_of_all_keys_from_the_database(
    service: JobService, tmp_path: Path
) -> None:
    settings = JobSettings(enabled=True, storage=str(tmp_path))

    async def add() -> None:
        store = open_store(settings)
        await store.add_usage(
            [
                Usage("team-a", "2026-11", "job", 3600.0, 2),
                Usage("team-b", "2026-11", "request", 1.5, 1),
                Usage("team-b", "2026-10", "request", 9.0, 1),
            ]
        )
        await store.close()

    asyncio.run(add())
    options = ("--set", "jobs.enabled=true", "--set", f"jobs.storage={tmp_path}")
    assert run("usage", "--all", "--csv", "--month", "2026-11", *options).stdout == (
        "key,month,kind,audio_s,requests\n"
        "team-a,2026-11,job,3600.000,2\n"
        "team-b,2026-11,request,1.500,1\n"
    )
    without = run("usage", "--all", "--set", f"jobs.storage={tmp_path}")
    assert isinstance(without.exception, ConfigurationError)
    assert "jobs.enabled is false" in str(without.exception)
    assert service.requests == []


def test_tables_are_made_and_then_up_to_date(tmp_path: Path) -> None:
    options = ("--set", f"jobs.storage={tmp_path / 'jobs'}")
    assert "before: none" in run("jobs", "migrate", *options).stdout
    assert "up to date" in run("jobs", "migrate", *options).stdout


def test_database_that_does_not_answer_is_an_error_without_its_password(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://owner:geheim@127.0.0.1:9/jobs")
    result = run("jobs", "migrate", "--set", f"jobs.database_url_file={tmp_path / 'url'}")
    assert isinstance(result.exception, StoreUnavailable)
    assert "geheim" not in str(result.exception) + result.output


def test_missing_package_of_the_store_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "serve_app.jobs.database", None)
    with pytest.raises(ModuleNotFoundError), store_imports():
        importlib.import_module("serve_app.jobs.database")
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with (
        pytest.raises(ConfigurationError, match=r"asyncpg .* 'paraserve\[jobs\]'"),
        store_imports(),
    ):
        importlib.import_module("asyncpg")
