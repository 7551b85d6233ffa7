"""The report as one HTML file that loads nothing and runs no script.

`assets/report.html` is the template; Jinja2 escapes every value that it inserts.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TypeAlias
from urllib.parse import quote

import jinja2

from serve_app.batch.progress_display import duration_text
from serve_app.batch.report_data import Accuracy, BatchReport, compute_s

_MAX_FAILURES = 200
_MAX_RECORDINGS = 500

LinkOf: TypeAlias = Callable[[str], str]
"""Returns the path of a recording's text, relative to the page."""


@dataclass(frozen=True, slots=True)
class _Link:
    """A cell that leads to a file beside the page."""

    text: str
    path: str

    @property
    def url(self) -> str:
        return quote(self.path)


@dataclass(frozen=True, slots=True)
class _Table:
    """A section of the page; one without rows is left out.

    Attributes:
        title: heading.
        header: a name per column.
        rows: cells as text, or links.
        num_texts: number of leading columns that hold text; the others hold numbers.
        note: a line below the table.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | _Link]]
    num_texts: int = 1
    note: str = ""


def render_page(report: BatchReport, picture: bytes | None, link_of: LinkOf) -> str:
    """Returns the page.

    Args:
        report: what to show.
        picture: PNG to embed; None for none.
        link_of: see `LinkOf`.
    """
    return _template().render(
        overview=_overview(report),
        first=[_failures_by_kind(report), _failures(report), _folders(report)],
        picture=None if picture is None else base64.b64encode(picture).decode(),
        details=[
            *([_least_accurate(report.accuracy, link_of)] if report.accuracy else []),
            _slowest(report, link_of),
            _attempts(report),
            _compute(report),
            _recordings(report, link_of),
        ],
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
    ]
    if report.accuracy is not None:
        rows.append(
            (
                "Character error rate",
                f"{report.accuracy.cer:.2%} over {report.accuracy.num_references:,} references",
            )
        )
    return rows


def _compute(report: BatchReport) -> _Table:
    killed = report.wasted.killed_attempts
    unknown = f"; what {killed} killed attempts did last is not known" if killed else ""
    rows = [
        ("Stages", _stage_shares(report)),
        (
            "Padding",
            "not measured"
            if report.padding_ratio is None
            else f"{report.padding_ratio:.1%} of the computed frames",
        ),
        (
            "Work lost",
            f"{duration_text(report.wasted.wasted_s)} of speech, "
            f"{report.wasted.share:.1%}{unknown}",
        ),
    ]
    return _Table("Compute", ("", ""), rows, num_texts=2)


def _folders(report: BatchReport) -> _Table:
    if len(report.folders) < 2:
        return _Table("Folders", (), ())
    rows = [
        (
            each.folder or "(none)",
            f"{each.num_recordings:,}",
            f"{each.num_finished:,}",
            f"{each.num_failed:,}",
            f"{each.audio_s / 3600:,.2f}",
            "" if each.cer is None else f"{each.cer:.2%}",
        )
        for each in report.folders
    ]
    header = ("folder", "recordings", "finished", "failed", "audio h", "CER")
    return _Table("Folders", header, rows)


def _recordings(report: BatchReport, link_of: LinkOf) -> _Table:
    rows = [
        (
            _Link(each.id, link_of(each.id)),
            duration_text(each.audio_s),
            f"{each.num_characters:,}",
            "yes" if each.partial else "",
        )
        for each in report.results[:_MAX_RECORDINGS]
    ]
    num_omitted = len(report.results) - len(rows)
    note = f"{num_omitted:,} more are below transcripts/." if num_omitted else ""
    return _Table("Transcripts", ("recording", "length", "characters", "partial"), rows, note=note)


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


def _slowest(report: BatchReport, link_of: LinkOf) -> _Table:
    rows = [
        (
            _Link(each.id, link_of(each.id)),
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


def _least_accurate(accuracy: Accuracy, link_of: LinkOf) -> _Table:
    rows = [
        (
            _Link(each.id, link_of(each.id)),
            f"{each.cer:.2%}",
            f"{each.num_edits:,}",
            f"{each.num_reference_characters:,}",
        )
        for each in accuracy.worst
    ]
    header = ("recording", "CER", "edits", "characters in reference")
    return _Table("Furthest from their references", header, rows)
