from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from serve_app.batch.attempts import Attempt, AttemptJournal, wasted_work
from serve_app.batch.storage import LocalFiles


def test_attempts_are_numbered_across_runs(tmp_path: Path) -> None:
    first = AttemptJournal(LocalFiles(tmp_path)).begin("c", 100.0)
    journal = AttemptJournal(LocalFiles(tmp_path))
    second = journal.begin("c", 200.0)
    journal.record(replace(second, recognized_s=5.0, end="completed"))
    assert journal.attempts() == [first, replace(second, recognized_s=5.0, end="completed")]
    assert (first.number, second.number) == (1, 2)


def test_record_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    journal = AttemptJournal(LocalFiles(tmp_path))
    journal.begin("c", 100.0)
    LocalFiles(tmp_path).put("_run/attempts/00002.json", b"{}")
    assert [attempt.number for attempt in journal.attempts()] == [1]


def test_work_is_lost_that_is_in_no_result() -> None:
    killed = Attempt(1, "c", 0.0, recognized_s=60.0)
    done = Attempt(2, "c", 0.0, recognized_s=50.0, end="completed")
    work = wasted_work([killed, done], kept_s=100.0)
    assert work.wasted_s == 10.0
    assert work.share == pytest.approx(10 / 110)
    assert work.killed_attempts == 1


def test_lost_work_is_never_negative() -> None:
    work = wasted_work([], kept_s=100.0)
    assert (work.wasted_s, work.share) == (0.0, 0.0)
