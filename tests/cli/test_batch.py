"""`paraserve batch` over a Job API in memory."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import cast

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient
from typer.testing import CliRunner

from serve_app.batch.client import BatchJobs
from serve_app.cli.main import app
from serve_app.settings import load_settings
from tests.fakes.ray_jobs import FakeRay


@pytest.fixture
def ray_jobs(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()

    def connect(address: str, token: str | None = None) -> BatchJobs:
        fake.seen = (address, token)
        return BatchJobs(cast(JobSubmissionClient, fake))

    monkeypatch.setattr("serve_app.batch.client.connect", connect)
    return fake


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


def test_submit_prints_the_id_and_passes_everything_on(
    runner: CliRunner, ray_jobs: FakeRay
) -> None:
    result = runner.invoke(
        app,
        ["batch", "submit", "in.jsonl", "out", "--formats", "srt", "--stages", "asr",
         "--no-itn", "--retry-failed", "--accept-failures", "--set", "batch.resources=serve"],
    )  # fmt: skip

    assert (result.exit_code, result.stdout) == (0, "raysubmit_0\n")
    assert shlex.split(ray_jobs.details["raysubmit_0"].entrypoint)[3:] == [
        "in.jsonl", "out", "--profile", "demo", "--set", "batch.resources=serve",
        "--formats", "srt", "--stages", "asr", "--no-itn", "--retry-failed", "--accept-failures",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [["submit", "in", "out"], ["status"], ["logs", "raysubmit_0"], ["cancel", "raysubmit_0"]],
)
def test_address_comes_from_the_settings_that_are_given(
    runner: CliRunner, ray_jobs: FakeRay, tmp_path: Path, arguments: list[str]
) -> None:
    runner.invoke(app, ["batch", "submit", "in", "other"])
    profile = tmp_path / "mine.yaml"
    profile.write_text("batch: {jobs_address: 'http://profile:8265'}\n", encoding="utf-8")

    runner.invoke(app, ["batch", *arguments, "--profile", str(profile)])
    assert ray_jobs.seen == ("http://profile:8265", None)

    runner.invoke(app, ["batch", *arguments, "--set", "batch.jobs_address=http://set:8265"])
    assert ray_jobs.seen == ("http://set:8265", None)


def test_known_speakers_are_refused_with_a_way_to_name_them(
    runner: CliRunner, ray_jobs: FakeRay
) -> None:
    result = runner.invoke(app, ["batch", "submit", "in", "out", "--speaker", "Anna=anna.wav"])
    assert result.exit_code == 2
    assert "cannot name speakers" in " ".join(result.output.replace("│", " ").split())
    assert not ray_jobs.details


@pytest.mark.parametrize(
    "places",
    [("reference://a.wav::file:///evil.json", "out"), ("in.jsonl", "simplecache::s3://b/out")],
)
def test_place_that_no_job_opens_is_a_usage_error(
    runner: CliRunner, ray_jobs: FakeRay, places: tuple[str, str]
) -> None:
    assert runner.invoke(app, ["batch", "submit", *places]).exit_code == 2
    assert not ray_jobs.details


def test_profile_that_is_a_file_travels_with_the_job(
    runner: CliRunner, ray_jobs: FakeRay, tmp_path: Path
) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text("stages: [vad, asr]\nrecognizer: {max_batch_frames: 77}\n")

    runner.invoke(app, ["batch", "submit", "in", "out", "-p", str(profile), "--set", "offline=1"])

    words = shlex.split(ray_jobs.details["raysubmit_0"].entrypoint)
    profile.unlink()
    on_the_cluster = load_settings(words[words.index("--profile") + 1], ["offline=1"])
    assert on_the_cluster.recognizer.max_batch_frames == 77
    assert on_the_cluster.stages == ("vad", "asr")
    assert str(tmp_path) not in " ".join(words)


def test_wrong_setting_shows_before_anything_is_submitted(
    runner: CliRunner, ray_jobs: FakeRay
) -> None:
    result = runner.invoke(app, ["batch", "submit", "in", "out", "--set", "batch.resources=all"])

    assert result.exit_code != 0
    assert not ray_jobs.details


def test_status_exits_as_the_job_stands(runner: CliRunner, ray_jobs: FakeRay) -> None:
    runner.invoke(app, ["batch", "submit", "in", "out"])
    assert runner.invoke(app, ["batch", "status", "raysubmit_0"]).exit_code == 4

    ray_jobs.end("raysubmit_0", JobStatus.FAILED, 3)
    assert runner.invoke(app, ["batch", "status", "raysubmit_0"]).exit_code == 3


def test_status_shows_the_figures_of_the_log(runner: CliRunner, ray_jobs: FakeRay) -> None:
    runner.invoke(app, ["batch", "submit", "in", "out"])
    ray_jobs.written["raysubmit_0"] = json.dumps(
        {"progress": {"done": 7, "total": 9, "failed": 1, "rtfx": 51.2}}
    )

    result = runner.invoke(app, ["batch", "status", "raysubmit_0"])

    assert "7 of 9 done, 1 failed, 51.2 x real time" in result.stderr
    as_json = runner.invoke(app, ["batch", "status", "raysubmit_0", "--json"])
    assert json.loads(as_json.stdout)["progress"]["done"] == 7


def test_full_cluster_is_told_instead_of_no_progress(runner: CliRunner, ray_jobs: FakeRay) -> None:
    runner.invoke(app, ["batch", "submit", "in", "out"])
    ray_jobs.written["raysubmit_0"] = json.dumps(
        {"progress": {"done": 0, "total": 8, "failed": 0, "waiting_cpus": 0.5}}
    )

    result = runner.invoke(app, ["batch", "status", "raysubmit_0"])

    assert "waits for 0.5 cores" in result.stderr
    assert "0 of 8 done" not in result.stderr


def test_all_jobs_are_listed(runner: CliRunner, ray_jobs: FakeRay) -> None:
    runner.invoke(app, ["batch", "submit", "in", "out"])

    listed = json.loads(runner.invoke(app, ["batch", "status", "--json"]).stdout)

    assert [(job["job_id"], job["phase"]) for job in listed] == [("raysubmit_0", "running")]


def test_resume_waits_for_the_end_on_request(runner: CliRunner, ray_jobs: FakeRay) -> None:
    runner.invoke(app, ["batch", "submit", "in", "out"])
    ray_jobs.end("raysubmit_0", JobStatus.FAILED, 1)
    ray_jobs.ends_at_once = (JobStatus.SUCCEEDED, 0)

    result = runner.invoke(app, ["batch", "resume", "raysubmit_0", "--wait"])

    assert (result.exit_code, result.stdout) == (0, "raysubmit_1\n")


def test_report_of_a_job_whatever_its_id(
    runner: CliRunner, ray_jobs: FakeRay, tmp_path: Path
) -> None:
    command = f"python -m serve_app.batch in {tmp_path}"
    job_id = ray_jobs.submit_job(entrypoint=command, metadata={})
    ray_jobs.details["nightly-x7k2p"] = ray_jobs.details.pop(job_id)
    (tmp_path / "report.json").write_text('{"totals": {"num_recordings": 9}}', encoding="utf-8")

    for job in ("nightly-x7k2p", str(tmp_path)):
        assert "of 9 recordings" in runner.invoke(app, ["batch", "report", job]).stdout


def test_report_of_an_unknown_directory_is_refused(runner: CliRunner, ray_jobs: FakeRay) -> None:
    error = runner.invoke(app, ["batch", "report", "nothing"]).exception
    assert "no directory nothing here, and there is no job nothing" in str(error)


def test_logs_are_printed_as_they_are(runner: CliRunner, ray_jobs: FakeRay) -> None:
    runner.invoke(app, ["batch", "submit", "in", "out"])
    ray_jobs.written["raysubmit_0"] = "one\ntwo\n"

    assert runner.invoke(app, ["batch", "logs", "raysubmit_0"]).stdout == "one\ntwo\n"


def test_cancelled_job_is_over(runner: CliRunner, ray_jobs: FakeRay) -> None:
    runner.invoke(app, ["batch", "submit", "in", "out"])

    assert "being canceled" in runner.invoke(app, ["batch", "cancel", "raysubmit_0"]).stdout
    assert runner.invoke(app, ["batch", "status", "raysubmit_0"]).exit_code == 1


def test_token_comes_from_its_file_and_is_never_printed(
    runner: CliRunner, ray_jobs: FakeRay, tmp_path: Path
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("s3cret\n", encoding="utf-8")

    result = runner.invoke(
        app,
        ["batch", "submit", "in", "out", "--address", "http://head:8265",
         "--token-file", str(token_file)],
    )  # fmt: skip

    assert ray_jobs.seen == ("http://head:8265", "s3cret")
    assert "s3cret" not in result.output
    assert "s3cret" not in ray_jobs.details["raysubmit_0"].entrypoint
