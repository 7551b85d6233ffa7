"""What a run found out, as a table, as JSON and as a chart."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtests.bench.tables import Cell, Table
from loadtests.load.charts import draw_run
from loadtests.load.mixes import class_name, in_order
from loadtests.load.outcomes import (
    Fate,
    Outcome,
    Percentiles,
    attempts_of,
    audio_s_per_s,
    bad_refusals,
    count,
    percentiles,
)

_SHOWN = ("p50", "p95", "p99")
_COLUMNS = (
    *("length", "sent", "right", "partial", "429", "4xx", "lost"),
    *(f"first byte {name}" for name in _SHOWN),
    *(f"complete {name}" for name in _SHOWN),
)


@dataclass(frozen=True, slots=True)
class ClassReport:
    """One row: the requests of one length class, or all of them.

    Attributes:
        refused: requests whose last answer was a 429.
        first_byte_s: of requests that were answered right, from the time they were due.
        complete_s: likewise, to the end of the answer.
    """

    name: str
    num_sent: int
    num_right: int
    num_partial: int
    num_refused: int
    num_rejected: int
    num_lost: int
    first_byte_s: Percentiles
    complete_s: Percentiles


@dataclass(frozen=True, slots=True)
class RunReport:
    """A whole run.

    Attributes:
        command: as it was given.
        machine: where it ran.
        audio_s_per_s: answered right.
        offered_audio_s_per_s: sent.
        num_refusals: 429s, every attempt counted.
        num_bad_refusals: of those, the ones without a usable Retry-After.
        num_breaks: connections that ended before their answer, every attempt counted.
        sent_late_s: how late the generator itself was.
        errors: what went wrong, and how often.
        classes: all requests first, then by length.
    """

    command: str
    machine: str
    audio_s_per_s: float
    offered_audio_s_per_s: float
    num_refusals: int
    num_bad_refusals: int
    num_breaks: int
    sent_late_s: Percentiles
    errors: dict[str, int]
    classes: tuple[ClassReport, ...]

    def table(self) -> Table:
        rows = tuple(_row(entry) for entry in self.classes)
        late = self.sent_late_s
        notes = [
            f"audio answered right: {self.audio_s_per_s:.1f} s per s "
            f"(offered {self.offered_audio_s_per_s:.1f})",
            f"429s: {self.num_refusals}, without a usable Retry-After: {self.num_bad_refusals}; "
            f"broken connections: {self.num_breaks}",
            f"the generator sent p50 {_shown(late.p50)}, p99 {_shown(late.p99)} s late",
            *(f"{number} x {error}" for error, number in self.errors.items()),
            self.machine,
        ]
        return Table("Latencies in s from the time a request was due", _COLUMNS, rows, tuple(notes))


def report(
    outcomes: Sequence[Outcome],
    *,
    command: str,
    machine: str,
    max_retry_after_s: float = 300.0,
) -> RunReport:
    """Sums up a run.

    Args:
        outcomes: at least one.
        command: as it was given.
        machine: where it ran.
        max_retry_after_s: more than this in a Retry-After is not usable.

    Raises:
        ValueError: there are no outcomes.
    """
    if not outcomes:
        raise ValueError("no requests were due")
    refusals = attempts_of(outcomes, Fate.REFUSED)
    by_class: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_class.setdefault(class_name(outcome.audio_s), []).append(outcome)
    classes = [_class_report("all", outcomes)]
    classes += [_class_report(name, by_class[name]) for name in in_order(by_class)]
    last_s = max(outcome.arrival.at_s for outcome in outcomes)
    return RunReport(
        command,
        machine,
        audio_s_per_s(outcomes),
        sum(outcome.audio_s for outcome in outcomes) / max(last_s, 1e-9),
        len(refusals),
        len(bad_refusals(refusals, max_retry_after_s)),
        len(attempts_of(outcomes, Fate.BROKEN)),
        percentiles([outcome.sent_late_s for outcome in outcomes]),
        _errors(outcomes),
        tuple(classes),
    )


def write(run: RunReport, outcomes: Sequence[Outcome], directory: Path) -> list[Path]:
    """Writes load.txt, load.json and, where matplotlib is there, load.png."""
    directory.mkdir(parents=True, exist_ok=True)
    text, record, chart = (directory / f"load.{suffix}" for suffix in ("txt", "json", "png"))
    text.write_text(f"{run.command}\n\n{run.table().text()}\n", encoding="utf-8")
    record.write_text(json.dumps(asdict(run), indent=2, ensure_ascii=False) + "\n", "utf-8")
    drawn = draw_run(outcomes, chart)
    return [text, record, *([chart] if drawn else [])]


def _class_report(name: str, outcomes: Sequence[Outcome]) -> ClassReport:
    right = [outcome for outcome in outcomes if outcome.fate is Fate.RIGHT]
    return ClassReport(
        name,
        len(outcomes),
        len(right),
        count(outcomes, Fate.PARTIAL),
        count(outcomes, Fate.REFUSED),
        count(outcomes, Fate.REJECTED),
        sum(outcome.lost for outcome in outcomes),
        percentiles([o.first_byte_s for o in right if o.first_byte_s is not None]),
        percentiles([outcome.complete_s for outcome in right]),
    )


def _errors(outcomes: Sequence[Outcome]) -> dict[str, int]:
    counts = Counter(
        f"{attempt.fate}: {attempt.detail}"
        for outcome in outcomes
        for attempt in outcome.attempts
        if attempt.fate is not Fate.RIGHT
    )
    return dict(counts.most_common(12))


def _row(entry: ClassReport) -> tuple[Cell, ...]:
    latencies = (entry.first_byte_s, entry.complete_s)
    return (
        entry.name,
        entry.num_sent,
        entry.num_right,
        entry.num_partial,
        entry.num_refused,
        entry.num_rejected,
        entry.num_lost,
        *(_shown(value) for each in latencies for value in (each.p50, each.p95, each.p99)),
    )


def _shown(latency_s: float | None) -> str:
    return "-" if latency_s is None else f"{latency_s:.3f}"
