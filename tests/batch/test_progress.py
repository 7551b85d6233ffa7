from __future__ import annotations

import io
import json
import threading
import time

import pytest
from rich.console import Console

from serve_app.batch.job_status import last_progress
from serve_app.batch.progress import (
    Counters,
    ProgressReporter,
    Snapshot,
)
from serve_app.batch.progress_display import ProgressBar, print_json_line, progress_figures
from serve_app.batch.records import StageTimes
from serve_app.batch.waiting import Demand

TIMES = StageTimes(1.0, 2.0, 0.5, 4.0)


def counters() -> Counters:
    return Counters(
        state="running",
        total=10,
        planned_files=8,
        planned_bytes=8000,
        done=2,
        began_s=0.0,
        working_since_s=10.0,
    )


def test_snapshot_shows_the_remaining_work_and_time() -> None:
    run = counters()
    for _ in range(4):
        run.count_handled(30.0, 1000, TIMES)
    shown = run.snapshot(30.0, 1000.0)
    assert (shown.done, shown.failed, shown.left) == (6, 0, 4)
    assert shown.rtfx == 6.0
    assert shown.eta_s == 20.0
    assert shown.elapsed_s == 30.0


def test_recording_that_failed_is_dealt_with_and_not_done() -> None:
    run = counters()
    run.count_handled(0.0, 1000, None)
    shown = run.snapshot(30.0, 1000.0)
    assert (shown.done, shown.failed, shown.left) == (2, 1, 7)
    assert run.num_finished == 0


def test_parts_of_a_long_recording_count_for_the_time_that_is_left() -> None:
    run = counters()
    run.count_handled(30.0, 1000, TIMES)
    run.recognized_audio_s, run.open = 120.0, 4
    assert run.snapshot(30.0, 1000.0).eta_s == 20.0


def test_remaining_time_is_estimated_by_number_without_sizes() -> None:
    run = counters()
    run.planned_bytes = None
    run.count_handled(30.0, None, TIMES)
    run.count_handled(30.0, None, TIMES)
    assert run.snapshot(20.0, 1000.0).eta_s == 30.0


def test_pace_is_not_shown_before_it_is_known() -> None:
    shown = counters().snapshot(11.0, 1000.0)
    assert (shown.rtfx, shown.eta_s) == (None, None)


def test_compute_of_all_recordings_adds_up() -> None:
    run = counters()
    run.count_handled(30.0, 1, TIMES)
    run.count_handled(30.0, 1, TIMES)
    assert run.times == StageTimes(2.0, 4.0, 1.0, 8.0)


def test_reporter_writes_regularly_and_once_more_at_the_end() -> None:
    written: list[bytes] = []
    shown: list[Snapshot] = []
    twice = threading.Event()

    def write(content: bytes) -> None:
        written.append(content)
        if len(written) == 2:
            twice.set()

    run = counters()
    with ProgressReporter(run, write, shown.append, 1000.0, 0.01):
        assert twice.wait(10)
        run.state = "done"
    assert json.loads(written[-1])["state"] == "done"
    assert shown[-1].total == 10


def test_reporter_continues_if_the_progress_cannot_be_written(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def write(content: bytes) -> None:
        raise OSError("disk full")

    shown: list[Snapshot] = []
    with ProgressReporter(counters(), write, shown.append, 1000.0, 1000.0):
        pass
    assert len(shown) == 1
    assert "disk full" in caplog.text


def test_time_left_is_not_zero_while_most_recordings_are_not_open() -> None:
    run = counters()
    run.planned_files, run.planned_bytes = 100, 100_000
    run.working_since_s = 1.0
    run.count_handled(1.0, 1000, TIMES)
    # Long recordings are open: their speech is far above that of the finished one.
    run.open, run.recognized_audio_s = 2, 500.0
    shown = run.snapshot(11.0, 1000.0)
    assert shown.eta_s is not None
    assert shown.eta_s > 100


def test_figures_name_the_time_left_only_while_something_is_left() -> None:
    fields = {"done": 3, "total": 10, "left": 7, "failed": 1, "rtfx": 20.0, "eta_s": 125.0}
    assert progress_figures(fields) == [
        "3 of 10 done",
        "1 failed",
        "20.0 x real time",
        "2 min 05 s left",
    ]
    assert progress_figures(fields | {"left": 0})[-1] == "20.0 x real time"


def test_bar_shows_state_and_figures_on_a_terminal() -> None:
    screen = io.StringIO()
    with ProgressBar(Console(file=screen, force_terminal=True, width=120)) as bar:
        bar.show(counters().snapshot(11.0, 1000.0))
    assert "of 10 done" in screen.getvalue()


def test_json_line_is_what_the_status_of_a_job_reads(capsys: pytest.CaptureFixture[str]) -> None:
    print_json_line(counters().snapshot(11.0, 1000.0))
    assert last_progress(capsys.readouterr().err)["total"] == 10


def test_wait_for_cores_is_told_when_it_lasts() -> None:
    run = counters()
    run.ask_waiting = lambda: Demand(cpus=0.5)
    run.refresh()
    began_s = time.monotonic()
    assert run.snapshot(began_s, 1000.0).waiting_cpus == 0.0
    assert run.snapshot(began_s + 10.0, 1000.0).waiting_cpus == 0.5
    run.ask_waiting = Demand
    run.refresh()
    assert run.snapshot(began_s + 20.0, 1000.0).waiting_cpus == 0.0
