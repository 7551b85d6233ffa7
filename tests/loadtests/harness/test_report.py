"""The one report: tables, promises, and files that are there before the run ends."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtests.harness.report import Report, Table, parse, parser

TABLE = Table("Speed", ("peer", "RTFx"), [("ours", 1234.5), ("the other", 7)], ["a note"])

# Adds a row, says so, and waits to be killed.
_INTERRUPTED = """
import argparse, pathlib, signal, sys
from loadtests.harness.report import Report
# Python leaves it ignored where the tests run in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
with Report("run", argparse.Namespace(out=pathlib.Path(sys.argv[1]), command_line=[])) as report:
    report.table("Speed", ("peer", "RTFx"))
    report.row("ours", 2.5)
    report.say("measured")
    sys.stdin.readline()
"""


def made(directory: Path) -> Report:
    return Report("run", argparse.Namespace(out=directory, command_line=["engine", "--a b"]))


def written(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "run.json").read_text())
    return content


def test_text_is_aligned() -> None:
    title, head, first, second, note = TABLE.text().splitlines()
    assert (title, note) == ("Speed", "a note")
    assert first == "ours       1,234.50"
    assert len(head) == len(first) == len(second)


def test_markdown_has_a_row_for_each_peer() -> None:
    assert "| ours | 1,234.50 |\n| the other | 7 |" in TABLE.markdown()
    assert TABLE.markdown().endswith("- a note")


def test_report_is_written_as_text_markdown_and_json(tmp_path: Path) -> None:
    with made(tmp_path) as report:
        report.table("Speed", ("peer", "RTFx"))
        report.row("ours", 1234.5)
        report.promise("faster than the other", "twice", True)
    assert report.exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "run.md", "run.txt"]
    content = written(tmp_path)
    assert content["tables"][0]["rows"] == [["ours", 1234.5]]
    assert content["promises"][0]["kept"] is True
    assert content["complete"] is True
    assert "`python -m loadtests engine '--a b'`" in (tmp_path / "run.md").read_text()
    assert "faster than the other  twice   yes" in (tmp_path / "run.txt").read_text()


def test_broken_promise_is_an_exit_code(tmp_path: Path) -> None:
    with made(tmp_path) as report:
        report.promise("faster", "slower", False)
    assert report.exit_code == 1
    assert report.promise_table().rows == [("faster", "slower", "NO")]


def test_rows_are_in_the_files_at_once(tmp_path: Path) -> None:
    with made(tmp_path) as report:
        report.table("Speed", ("peer", "RTFx"))
        report.row("ours", 2.5)
        assert written(tmp_path)["tables"][0]["rows"] == [["ours", 2.5]]
        assert written(tmp_path)["complete"] is False


def test_error_leaves_what_was_measured_and_says_so(tmp_path: Path) -> None:
    report = made(tmp_path)

    def run() -> None:
        with report:
            report.table("Speed", ("peer", "RTFx"))
            report.row("ours", 2.5)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run()
    content = written(tmp_path)
    assert content["tables"][0]["rows"] == [["ours", 2.5]]
    assert content["complete"] is False
    assert "INTERRUPTED by RuntimeError" in content["machine"]
    assert report.exit_code == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_killed_run_keeps_its_rows(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[3],
    ) as process:
        assert process.stdout is not None
        assert any(line == b"measured\n" for line in process.stdout)
        os.kill(process.pid, number)
        rest = process.stdout.read()
        assert process.wait(60) != 0
    assert written(tmp_path)["tables"][0]["rows"] == [["ours", 2.5]]
    assert written(tmp_path)["complete"] is False
    # One that may end by itself prints its table.
    assert (b"2.50" in rest) == (number != signal.SIGKILL)


def test_figure_is_drawn_where_matplotlib_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with made(tmp_path) as report:
        report.bars(("RTFx", ["ours", "the other"], [2.5, None]))
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_command_line_is_part_of_the_options() -> None:
    options = parse(parser("engine", None), ["--out", "there"])
    assert options.command_line == ["engine", "--out", "there"]
    assert options.out == Path("there")
