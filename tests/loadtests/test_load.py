"""What is reported of open-loop traffic, and which command lines are refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from loadtests.harness.report import Report, Table
from loadtests.harness.requests import Attempt, Fate, Outcome
from loadtests.load import COLUMNS, TITLE, draw, fill, main
from loadtests.ports import free_port


def outcome(
    fate: Fate, *, at_s: float, audio_s: float = 3.0, retry_after_s: float | None = None
) -> Outcome:
    attempt = Attempt(fate, at_s, at_s + 1, at_s + 0.5, None, retry_after_s, "why")
    return Outcome(audio_s, at_s, (attempt,), 0.001)


OUTCOMES = [
    outcome(Fate.RIGHT, at_s=0.0),
    outcome(Fate.RIGHT, at_s=1.0, audio_s=3600.0),
    outcome(Fate.REFUSED, at_s=2.0, retry_after_s=5.0),
    outcome(Fate.REFUSED, at_s=3.0),
    outcome(Fate.BROKEN, at_s=4.0),
]


def filled(report: Report, outcomes: list[Outcome]) -> Table:
    table = report.table(TITLE, COLUMNS)
    fill(report, table, outcomes)
    return table


def test_classes_follow_the_sum_of_all(report: Report) -> None:
    table = filled(report, OUTCOMES)
    assert [row[0] for row in table.rows] == ["all", "3 s", "1 h"]
    whole = dict(zip(COLUMNS, table.rows[0], strict=True))
    assert [whole[name] for name in ("sent", "right", "429", "lost")] == [5, 2, 2, 1]
    assert (whole["first byte p50"], whole["complete p50"]) == ("0.500", "1.000")


def test_refusals_without_a_time_and_reasons_are_counted(report: Report) -> None:
    notes = filled(report, OUTCOMES).notes
    assert "429s: 2, without a usable Retry-After: 1; broken connections: 1" in notes
    assert notes[-2:] == ["2 x refused: why", "1 x broken: why"]


def test_class_without_right_answers_has_no_latencies(report: Report) -> None:
    text = filled(report, [outcome(Fate.BROKEN, at_s=1.0)]).text()
    assert text.splitlines()[2].split()[-6:] == ["-"] * 6


def test_report_of_nothing_is_refused(report: Report) -> None:
    with pytest.raises(ValueError, match="no requests"):
        filled(report, [])


def test_run_is_drawn_where_matplotlib_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure()
    partial(draw, OUTCOMES)(figure)
    assert len(figure.axes) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--url", "http://example.com"],
        ["--url", "http://127.0.0.1:1", "--rate", "0"],
        ["--url", "http://127.0.0.1:1", "--rate", "1000", "--max-requests", "10"],
        ["--url", "http://127.0.0.1:1", "--rate", "0.001", "--duration", "0.1"],
    ],
)
def test_invalid_command_line_is_reported(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_unreachable_service_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--url", f"http://127.0.0.1:{free_port()}", "--profile", "clips", "--rate", "5"]
    assert main([*command, "--duration", "10", "--out", str(tmp_path)]) == 2
    assert "error: ServiceUnreachable: no service answers" in capsys.readouterr().err
