"""The report of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.load.arrivals import Arrival
from loadtests.load.outcomes import Attempt, Fate, Outcome
from loadtests.load.reports import report, write


def outcome(
    fate: Fate, *, at_s: float, audio_s: float = 3.0, retry_after_s: float | None = None
) -> Outcome:
    attempts = (Attempt(fate, at_s + 1, None, retry_after_s, "why"),)
    return Outcome(Arrival(at_s, audio_s), audio_s, attempts, 0.001, 0.5, 1.0)


OUTCOMES = [
    outcome(Fate.RIGHT, at_s=0.0),
    outcome(Fate.RIGHT, at_s=1.0, audio_s=3600.0),
    outcome(Fate.REFUSED, at_s=2.0, retry_after_s=5.0),
    outcome(Fate.REFUSED, at_s=3.0),
    outcome(Fate.BROKEN, at_s=4.0),
]


def test_classes_follow_the_sum_of_all() -> None:
    run = report(OUTCOMES, command="c", machine="m")
    assert [entry.name for entry in run.classes] == ["all", "3 s", "1 h"]
    whole = run.classes[0]
    assert (whole.num_sent, whole.num_right, whole.num_refused, whole.num_lost) == (5, 2, 2, 1)


def test_refusals_without_a_time_are_counted_separately() -> None:
    run = report(OUTCOMES, command="c", machine="m")
    assert (run.num_refusals, run.num_bad_refusals, run.num_breaks) == (2, 1, 1)


def test_errors_are_counted_by_their_reason() -> None:
    assert report(OUTCOMES, command="c", machine="m").errors == {
        "refused: why": 2,
        "broken: why": 1,
    }


def test_class_without_right_answers_has_no_latencies() -> None:
    text = report([outcome(Fate.BROKEN, at_s=1.0)], command="c", machine="m").table().text()
    assert text.splitlines()[2].split()[-6:] == ["-"] * 6


def test_report_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no requests"):
        report([], command="c", machine="m")


def test_report_is_written_as_text_and_json(tmp_path: Path) -> None:
    run = report(OUTCOMES, command="the command", machine="the machine")
    paths = write(run, OUTCOMES, tmp_path)
    assert [path.name for path in paths[:2]] == ["load.txt", "load.json"]
    assert json.loads(paths[1].read_text())["classes"][1]["num_sent"] == 4
    assert paths[0].read_text().startswith("the command\n")
    assert "the machine" in paths[0].read_text()


def test_chart_is_drawn_where_matplotlib_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    paths = write(report(OUTCOMES, command="c", machine="m"), OUTCOMES, tmp_path)
    assert paths[-1].read_bytes().startswith(b"\x89PNG")
