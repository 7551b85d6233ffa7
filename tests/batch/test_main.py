"""The exit code of `python -m serve_app.batch`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from botocore.exceptions import EndpointConnectionError

from serve_app.batch.__main__ import main
from serve_app.batch.job import BatchJob, JobOrder
from serve_app.batch.records import Failure
from serve_app.batch.report_data import BatchReport, build_report
from serve_app.batch.session import Stopped
from serve_app.settings import Settings
from tests.batch.recordings import failure

FOR_GOOD = failure("bad.wav")
MAY_PASS = replace(failure("late.wav", "read_error"), permanent=False)


def exit_code(monkeypatch: pytest.MonkeyPatch, failures: list[Failure], *options: str) -> int:
    """Runs the command over a job that ends with these failures."""

    def run(self: BatchJob) -> BatchReport:
        return build_report([each.id for each in failures], [], failures, [])

    def without_output(self: BatchJob, settings: Settings, order: JobOrder) -> None:
        return None

    monkeypatch.setattr(BatchJob, "__init__", without_output)
    monkeypatch.setattr(BatchJob, "run", run)
    return main(["in", "out", *options])


def test_failed_recordings_show_in_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert exit_code(monkeypatch, [FOR_GOOD]) == 3


@pytest.mark.parametrize(
    "options", [["--accept-failures"], ["--set", "batch.accept_failures=true"]]
)
def test_failures_for_good_may_be_accepted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert exit_code(monkeypatch, [FOR_GOOD], *options) == 0
    assert "1 failed" in capsys.readouterr().out


def test_failures_that_another_run_retries_are_never_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert exit_code(monkeypatch, [FOR_GOOD, MAY_PASS], "--accept-failures") == 3


def test_command_line_wins_over_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--set", "batch.accept_failures=true", "--no-accept-failures"]
    assert exit_code(monkeypatch, [FOR_GOOD], *options) == 3


def test_end_names_report_and_failures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exit_code(monkeypatch, [FOR_GOOD])
    printed = capsys.readouterr().out
    assert "out/report.html" in printed
    assert "out/failures.jsonl" in printed
    assert "--retry-failed" in printed


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "Run the same command to continue"),
        (Stopped(), 1, "Run the same command to continue"),
        (EndpointConnectionError(endpoint_url="http://x/"), 1, 'endpoint URL: "http://x/"'),
    ],
)
def test_interruption_or_unreachable_storage_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    message: str,
) -> None:
    def run(self: BatchJob) -> BatchReport:
        raise error

    monkeypatch.setattr(BatchJob, "__init__", lambda *_: None)
    monkeypatch.setattr(BatchJob, "run", run)
    assert main(["in", "out"]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
