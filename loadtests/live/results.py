"""The sessions of a run as one row, and what they are to hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from loadtests.harness.report import Cell, Report
from loadtests.harness.requests import Percentiles, percentiles
from loadtests.live.alignment import Differences, differences
from loadtests.live.speakers import SpeakerResult

COLUMNS = (
    *("sessions", "ended early", "segments", "first p50 s", "first p95 s", "final p50 s"),
    *("final p95 s", "lag p95 s", "lag max s", "spoken", "lost", "doubled", "changed", "added"),
)
MAX_FINAL_S = 1.0
"""95th percentile of the final texts up to which a service has capacity."""

_NOTES = (
    "first: from when a segment's speech began to its first text; final: from when its end could "
    "be known (0.8 s of silence, or the service's word) to its text; lag: from that silence to the "
    "service's word; spoken and after it: characters.",
)


@dataclass(frozen=True, slots=True)
class LiveResult:
    """What a number of sessions were told."""

    sessions: Sequence[SpeakerResult]
    text: Differences = field(init=False)

    def __post_init__(self) -> None:
        found = (differences(one.spoken, one.text) for one in self.sessions)
        object.__setattr__(self, "text", sum(found, Differences()))

    @property
    def problems(self) -> list[str]:
        return [one.problem for one in self.sessions if one.problem]

    @property
    def finals(self) -> Percentiles:
        return percentiles([each for one in self.sessions for each in one.finals_s])

    @property
    def first_partials(self) -> Percentiles:
        return percentiles([each for one in self.sessions for each in one.first_partials_s])

    @property
    def lags_s(self) -> list[float]:
        return [each for one in self.sessions for each in one.lags_s]

    @property
    def num_failed(self) -> int:
        return sum(one.num_failed for one in self.sessions)

    @property
    def num_retracted(self) -> int:
        return sum(one.num_retracted for one in self.sessions)

    def has_capacity(self, max_lag_s: float) -> bool:
        """Whether no session ended early, finals came in time and the lag is bounded."""
        p95 = self.finals.p95
        in_time = p95 is not None and p95 <= MAX_FINAL_S
        whole = not self.problems and not self.num_failed
        return whole and in_time and max(self.lags_s) <= max_lag_s

    def row(self) -> tuple[Cell, ...]:
        first, final, lag = self.first_partials, self.finals, percentiles(self.lags_s)
        return (
            *(len(self.sessions), len(self.problems)),
            sum(len(one.texts) for one in self.sessions),
            *(first.p50, first.p95, final.p50, final.p95),
            *(lag.p95, max(self.lags_s, default=None)),
            *(self.text.num_spoken, self.text.num_lost, self.text.num_doubled),
            *(self.text.num_changed, self.text.num_added),
        )


def add_table(report: Report, title: str, *first: str) -> None:
    """Begins a table of results, with further columns before theirs."""
    report.table(title, (*first, *COLUMNS), _NOTES)


def add_result(report: Report, result: LiveResult, *first: Cell) -> None:
    """Adds a row, and notes what went wrong."""
    report.row(*first, *result.row())
    for problem in sorted(set(result.problems)):
        report.note(f"{result.problems.count(problem)} x {problem}")
    if result.num_failed:
        report.note(f"{result.num_failed} segments without text")
    late_s = max((one.sent_late_s for one in result.sessions), default=0.0)
    if late_s > 0.5:
        report.note(f"the generator itself was up to {late_s:.1f} s late")


def promise_text(report: Report, result: LiveResult) -> None:
    """Adds the promises about what was told."""
    early, failed, text = len(result.problems), result.num_failed, result.text
    report.promise("no session ends early", f"{early} did", early == 0)
    found = f"{text.num_lost} lost, {text.num_doubled} doubled, {failed} segments without text"
    kept = text.num_lost + text.num_doubled + failed == 0
    report.promise("no character lost or doubled", found, kept)
    retracted = result.num_retracted
    report.promise("deltas joined are the final text", f"{retracted} were not", retracted == 0)
