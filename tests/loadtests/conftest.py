"""A report of its own for each test."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.harness.report import Report


@pytest.fixture
def report(tmp_path: Path) -> Iterator[Report]:
    options = argparse.Namespace(out=tmp_path / "report", command_line=["test", "--small"])
    with Report("test", options) as made:
        yield made


def kept(report: Report) -> list[bool]:
    """Returns of each promise whether it was kept."""
    return [one.kept for one in report.promises]
