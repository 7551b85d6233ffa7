"""What the clients saw of the kills."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtests.bench.tables import Cell, Table
from loadtests.chaos.kill_runner import Death
from loadtests.chaos.schedule import Target
from loadtests.load.outcomes import Fate, Outcome, attempts_of, count, percentiles

_BLAMED_FOR_S = 20.0


@dataclass(frozen=True, slots=True)
class ChaosReport:
    """A whole run.

    Attributes:
        num_refused: told to come back later, to the end; nothing of theirs was lost.
        num_unserved: found nobody who would take them, to the end.
        num_breaks: connections that ended under their clients, before they tried again.
        num_retried: requests that were sent more than once.
        num_kills_on_whole: kills that hit after all earlier ones had been recovered from.
        breaks_after: by target, breaks that came within 20 s after such a kill.
        slowest_s: by target, the longest right answer that was under way at such a kill.
    """

    num_sent: int
    num_accepted: int
    num_right: int
    num_partial: int
    num_wrong: int
    num_lost: int
    num_refused: int
    num_unserved: int
    num_breaks: int
    num_unavailable: int
    num_refusals: int
    num_retried: int
    num_kills: int
    num_kills_on_whole: int
    kills: dict[str, int]
    breaks_after: dict[str, int]
    slowest_s: dict[str, float]
    errors: tuple[str, ...]
    complete_p50_s: float | None
    complete_p95_s: float | None
    complete_p99_s: float | None

    @property
    def held(self) -> bool:
        """Whether everything that was not refused was answered, whole and right."""
        return self.num_lost == self.num_wrong == self.num_partial == self.num_unserved == 0


def chaos_report(
    outcomes: Sequence[Outcome], deaths: Sequence[Death], began_s: float
) -> ChaosReport:
    """Sums up a run whose attempts are timed from `began_s` on the monotonic clock."""
    breaks = attempts_of(outcomes, Fate.BROKEN)
    blamed = dict.fromkeys((str(target) for target in Target), 0)
    for broken in breaks:
        cause = _cause(began_s + broken.ended_s, deaths)
        if cause is not None:
            blamed[cause] += 1
    kills = {str(t): sum(death.target is t for death in deaths) for t in Target}
    complete = percentiles([o.complete_s for o in outcomes if o.fate is Fate.RIGHT])
    wrong = count(outcomes, Fate.WRONG)
    return ChaosReport(
        num_sent=len(outcomes),
        num_accepted=sum(outcome.accepted for outcome in outcomes),
        num_right=count(outcomes, Fate.RIGHT),
        num_partial=count(outcomes, Fate.PARTIAL),
        num_wrong=wrong,
        num_lost=sum(outcome.lost for outcome in outcomes) - wrong,
        num_refused=sum(not o.accepted and o.fate is not Fate.UNAVAILABLE for o in outcomes),
        num_unserved=sum(not o.accepted and o.fate is Fate.UNAVAILABLE for o in outcomes),
        num_breaks=len(breaks),
        num_unavailable=len(attempts_of(outcomes, Fate.UNAVAILABLE)),
        num_refusals=len(attempts_of(outcomes, Fate.REFUSED)),
        num_retried=sum(len(outcome.attempts) > 1 for outcome in outcomes),
        num_kills=len(deaths),
        num_kills_on_whole=sum(death.whole for death in deaths),
        kills=kills,
        breaks_after=blamed,
        slowest_s=_slowest_s(outcomes, deaths, began_s),
        errors=_errors(outcomes, began_s, deaths),
        complete_p50_s=complete.p50,
        complete_p95_s=complete.p95,
        complete_p99_s=complete.p99,
    )


def _cause(at_s: float, deaths: Sequence[Death]) -> Target | None:
    """Returns what the last kill before a moment hit, if it was not long ago."""
    before = [death for death in deaths if 0 <= at_s - death.at_s <= _BLAMED_FOR_S]
    return before[-1].target if before else None


def _slowest_s(
    outcomes: Sequence[Outcome], deaths: Sequence[Death], began_s: float
) -> dict[str, float]:
    slowest_s = dict.fromkeys((str(target) for target in Target), 0.0)
    for death in deaths:
        at_s = death.at_s - began_s
        for outcome in outcomes:
            due_s = outcome.arrival.at_s
            if outcome.fate is Fate.RIGHT and due_s <= at_s <= due_s + outcome.complete_s:
                slowest_s[death.target] = max(slowest_s[death.target], outcome.complete_s)
    return slowest_s


def _errors(
    outcomes: Sequence[Outcome], began_s: float, deaths: Sequence[Death]
) -> tuple[str, ...]:
    """Returns a line for every request that did not end right."""
    lines = []
    for outcome in outcomes:
        if outcome.fate is Fate.RIGHT:
            continue
        last = outcome.attempts[-1]
        cause = _cause(began_s + last.ended_s, deaths)
        lines.append(
            f"{last.ended_s:.1f} s: {outcome.audio_s:.0f} s of audio, {last.fate} ({last.detail}) "
            f"in attempt {len(outcome.attempts)}, after the kill of a {cause}"
        )
    return tuple(lines)


def tables(report: ChaosReport) -> tuple[Table, Table]:
    """Returns what was killed, and what became of the requests."""
    kills = tuple(
        (target, number, report.breaks_after[target], f"{report.slowest_s[target]:.1f}")
        for target, number in report.kills.items()
    )
    rows: tuple[tuple[Cell, ...], ...] = (
        ("sent", report.num_sent),
        ("accepted", report.num_accepted),
        ("answered right", report.num_right),
        ("partial", report.num_partial),
        ("wrong", report.num_wrong),
        ("lost", report.num_lost),
        ("refused to the end", report.num_refused),
        ("found nobody to the end", report.num_unserved),
        ("sent again by the client", report.num_retried),
        ("connections broken under a client", report.num_breaks),
        ("answered 503, or not connected", report.num_unavailable),
        ("answered 429", report.num_refusals),
    )
    latencies = (report.complete_p50_s, report.complete_p95_s, report.complete_p99_s)
    shown = ", ".join("-" if value is None else f"{value:.2f}" for value in latencies)
    notes = (f"complete, with all retries: p50, p95, p99 {shown} s", *report.errors)
    hit = f"{report.num_kills} kills, {report.num_kills_on_whole} after their target's recovery"
    return (
        Table(
            hit,
            ("target", "killed", "breaks seen by clients after it", "slowest right answer s"),
            kills,
        ),
        Table("Requests", ("what became of them", "number"), rows, notes),
    )


def write(report: ChaosReport, directory: Path, command: str) -> Path:
    """Writes chaos.txt and chaos.json; returns the latter's path."""
    directory.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join([command, *(table.text() for table in tables(report))])
    (directory / "chaos.txt").write_text(text + "\n", encoding="utf-8")
    path = directory / "chaos.json"
    path.write_text(json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n", "utf-8")
    return path
