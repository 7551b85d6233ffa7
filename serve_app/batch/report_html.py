"""The report as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from serve_app.batch.report_data import BatchReport, compute_s
from serve_app.batch.result_json import ResultSummary

_MAX_FAILURES = 200
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } td, th { padding: .25rem .6rem;
       border-bottom: 1px solid #ddd; text-align: left; vertical-align: top;
       overflow-wrap: anywhere; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums;
       white-space: nowrap; }
img { max-width: 100%; } .note { color: #666; }
"""


def render_page(report: BatchReport, picture: bytes | None) -> str:
    """Returns the page. All that comes from outside is escaped.

    Args:
        report: what to show.
        picture: PNG to embed; None for none.
    """
    parts = [
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>",
        "<meta http-equiv='Content-Security-Policy' "
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">",
        f"<title>Batch report</title><style>{_STYLE}</style></head><body>",
        "<h1>Batch report</h1>",
        _overview(report),
        _picture(picture),
        _attempts(report),
        _slowest(report.slowest),
        _failures(report),
        _accuracy(report),
        "</body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _overview(report: BatchReport) -> str:
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
    body = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows
    )
    return f"<table>{body}</table>"


def _stage_shares(report: BatchReport) -> str:
    names = {"segment": "reading and cutting", "recognize": "recognizing"}
    return ", ".join(
        f"{names.get(stage, 'punctuating')} {share:.1%}"
        for stage, share in report.stages.shares().items()
    )


def _picture(picture: bytes | None) -> str:
    if picture is None:
        return "<p class='note'>No picture: Matplotlib is not installed.</p>"
    encoded = base64.b64encode(picture).decode()
    source = f"data:image/png;base64,{encoded}"
    return f"<p><img alt='stages, recordings, attempts and failures' src='{source}'></p>"


def _attempts(report: BatchReport) -> str:
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
    return _section("Attempts", header, rows, num_texts=2)


def _slowest(summaries: Sequence[ResultSummary]) -> str:
    rows = [
        (
            each.id,
            duration_text(each.audio_s),
            f"{each.times.wall_s:,.2f}",
            f"{compute_s(each):,.2f}",
        )
        for each in summaries
    ]
    return _section("Slowest recordings", ("recording", "length", "wall s", "compute s"), rows)


def _failures(report: BatchReport) -> str:
    kinds = [(kind, f"{num:,}") for kind, num in report.failures_by_kind]
    rows = [(each.id, each.kind, each.reason) for each in report.failures[:_MAX_FAILURES]]
    left_out = len(report.failures) - len(rows)
    note = f"<p class='note'>{left_out:,} more are in failures.jsonl.</p>" if left_out else ""
    return (
        _section("Failures by kind", ("kind", "recordings"), kinds)
        + _section("Failures", ("recording", "kind", "reason"), rows, num_texts=3)
        + note
    )


def _accuracy(report: BatchReport) -> str:
    if report.accuracy is None:
        return ""
    rows = [
        (each.id, f"{each.cer:.2%}", f"{each.num_edits:,}", f"{each.num_reference_characters:,}")
        for each in report.accuracy.worst
    ]
    header = ("recording", "CER", "edits", "characters in reference")
    return _section("Furthest from their references", header, rows)


def _section(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], num_texts: int = 1
) -> str:
    """A table whose first `num_texts` columns are text and the others numbers."""
    lines = "".join(_row("td", row, num_texts) for row in rows)
    if not lines:
        return ""
    return (
        f"<h2>{escape(title)}</h2><table><thead>{_row('th', header, num_texts)}</thead>"
        f"<tbody>{lines}</tbody></table>"
    )


def _row(tag: str, cells: Sequence[str], num_texts: int) -> str:
    return (
        "<tr>"
        + "".join(
            f"<{tag}{'' if at < num_texts else ' class=number'}>{escape(cell)}</{tag}>"
            for at, cell in enumerate(cells)
        )
        + "</tr>"
    )


def duration_text(seconds: float) -> str:
    """Returns a length of time in the units that suit it."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
