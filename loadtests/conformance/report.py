"""What Schemathesis found out, out of its JSON report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TRANSCRIBED = "POST /v1/audio/transcriptions 200 "


@dataclass(frozen=True, slots=True)
class ConformanceReport:
    """One run.

    Attributes:
        num_cases: requests that were sent.
        counts: answers by method, path, status and media type, with spaces between them.
        complete: whether it came to its end.
        failures: titles of what is wrong with the answers.
        errors: what kept cases from being sent.
    """

    num_cases: int
    counts: Mapping[str, int]
    complete: bool
    failures: Sequence[str]
    errors: Sequence[str]

    @property
    def num_transcribed(self) -> int:
        return sum(
            count for answer, count in self.counts.items() if answer.startswith(_TRANSCRIBED)
        )


def read_report(path: Path, counts: Path) -> ConformanceReport | None:
    """Returns what the report and the hooks say, None if one of them did not get that far."""
    if not (path.exists() and counts.exists()):
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return ConformanceReport(
        num_cases=content["test_cases"]["generated"],
        counts=json.loads(counts.read_text(encoding="utf-8")),
        complete=content["complete"],
        failures=tuple(str(failure["title"]) for failure in content["failures"]),
        errors=tuple(str(error.get("title", error)) for error in content["errors"]),
    )


def judge(report: ConformanceReport | None, num_cases: int) -> tuple[str, bool]:
    """Returns a line on a run, and whether it was right.

    Args:
        report: None if the run broke off.
        num_cases: that were asked for.
    """
    if report is None:
        return "conformance: the run broke off", False
    line = (
        f"conformance: {report.num_cases} cases (at least {num_cases} wanted), "
        f"{report.num_transcribed} of them transcribed, {len(report.failures)} faults"
    )
    for answer, count in sorted(report.counts.items()):
        line += f"\n{count:6} {answer}"
    for problem in (*report.failures, *report.errors):
        line += f"\n- {problem}"
    right = (
        report.complete
        and report.num_cases >= num_cases
        and report.num_transcribed > 0
        and not report.failures
        and not report.errors
    )
    return line, right
