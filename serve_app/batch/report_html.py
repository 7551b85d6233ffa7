"""The report as one HTML file that loads nothing and runs no script.

`assets/report.html` is the template; Jinja2 escapes every value that it inserts.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import jinja2

from serve_app.batch.report_data import Accuracy, BatchReport, compute_s

_MAX_FAILURES = 200


@dataclass(frozen=True, slots=True)
class _Table:
    """A section of the page; one without rows is left out.

    Attributes:
        title: heading.
        header: a name per column.
        rows: cells as text.
        num_texts: number of leading columns that hold text; the others hold numbers.
        note: a line below the table.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_texts: int = 1
    note: str = ""


def render_page(report: BatchReport, picture: bytes | None) -> str:
    """Returns the page.

    Args:
        report: what to show.
        picture: PNG to embed; None for none.
    """
    tables = [
        _attempts(report),
        _slowest(report),
        _failures_by_kind(report),
        _failures(report),
        *([_least_accurate(report.accuracy)] if report.accuracy is not None else []),
    ]
    return _template().render(
        overview=_overview(report),
        picture=None if picture is None else base64.b64encode(picture).decode(),
        tables=tables,
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    page = resources.files("serve_app.batch") / "assets" / "report.html"
    return environment.from_string(page.read_text(encoding="utf-8"))


def _overview(report: BatchReport) -> list[tuple[str, str]]:
    """Returns names and values of the first table."""
    totals = report.totals
    rows = [
        ("Recordings", f"{totals.num_recordings:,}"),
        ("Finished", f"{totals.num_finished:,}, {totals.num_partial:,} of them partial"),
        ("Failed", f"{totals.num_failed:,}"),
        ("Not done yet", f"{totals.num_missing:,}"),
        ("Audio", f"{totals.audio_s / 3600:,.2f} h, {totals.speech_s / 3600:,.2f} h of it speech"),
        ("Time", f"{duration_text(totals.wall_s)} in {len(report.attempts)} attempts"),
        ("Speed", f"{totals.rtfx:,.1f} times real time"),
        ("Compute", _stage_shares(report)),
        (
            "Padding",
            "not measured"
            if report.padding_ratio is None
            else f"{report.padding_ratio:.1%} of the computed frames",
        ),
        (
            "Work lost",
            f"{duration_text(report.wasted.wasted_s)} of speech, {report.wasted.share:.1%}"
            + (
                f" (what {report.wasted.killed_attempts} killed attempts did last is not known)"
                if report.wasted.killed_attempts
                else ""
            ),
        ),
    ]
    if report.accuracy is not None:
        rows.append(
            (
                "Character error rate",
                f"{report.accuracy.cer:.2%} over {report.accuracy.num_references:,} references",
            )
        )
    return rows


def _stage_shares(report: BatchReport) -> str:
    names = {"segment": "reading and cutting", "recognize": "recognizing"}
    return ", ".join(
        f"{names.get(stage, 'punctuating')} {share:.1%}"
        for stage, share in report.stages.shares().items()
    )


def _attempts(report: BatchReport) -> _Table:
    rows = [
        (
            str(each.number),
            "killed" if each.end == "running" else each.end,
            duration_text(each.wall_s),
            f"{each.num_finished:,}",
            f"{each.num_failed:,}",
            duration_text(each.recognized_s),
        )
        for each in report.attempts
    ]
    header = ("attempt", "end", "time", "finished", "failed", "speech recognized")
    return _Table("Attempts", header, rows, num_texts=2)


def _slowest(report: BatchReport) -> _Table:
    rows = [
        (
            each.id,
            duration_text(each.audio_s),
            f"{each.times.wall_s:,.2f}",
            f"{compute_s(each):,.2f}",
        )
        for each in report.slowest
    ]
    return _Table("Slowest recordings", ("recording", "length", "wall s", "compute s"), rows)


def _failures_by_kind(report: BatchReport) -> _Table:
    rows = [(kind, f"{num:,}") for kind, num in report.failures_by_kind]
    return _Table("Failures by kind", ("kind", "recordings"), rows)


def _failures(report: BatchReport) -> _Table:
    rows = [(each.id, each.kind, each.reason) for each in report.failures[:_MAX_FAILURES]]
    num_omitted = len(report.failures) - len(rows)
    note = f"{num_omitted:,} more are in failures.jsonl." if num_omitted else ""
    return _Table("Failures", ("recording", "kind", "reason"), rows, num_texts=3, note=note)


def _least_accurate(accuracy: Accuracy) -> _Table:
    rows = [
        (each.id, f"{each.cer:.2%}", f"{each.num_edits:,}", f"{each.num_reference_characters:,}")
        for each in accuracy.worst
    ]
    header = ("recording", "CER", "edits", "characters in reference")
    return _Table("Furthest from their references", header, rows)


def duration_text(seconds: float) -> str:
    """Returns a duration in hours and minutes, minutes and seconds, or seconds."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
