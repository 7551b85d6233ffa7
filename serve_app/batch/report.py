"""The report of a job as report.json, report.html and report.png, and as text."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from serve_app.batch.attempts import Attempt
from serve_app.batch.outputs import OutputStore
from serve_app.batch.progress_display import duration_text
from serve_app.batch.records import JsonValue
from serve_app.batch.report_data import Accuracy, BatchReport, build_report, compute_s
from serve_app.batch.report_html import render_page
from serve_app.batch.result_json import ResultSummary
from serve_app.batch.storage import open_files
from serve_app.batch.uris import plain_uri
from serve_app.core.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_JSON = "report.json"


def report_json(report: BatchReport) -> str:
    """Returns report.json; units are in the names."""
    content = {
        "totals": asdict(report.totals) | {"audio_hours": report.totals.audio_s / 3600},
        "stages": {"compute": asdict(report.stages), "share": report.stages.shares()},
        "padding_ratio": report.padding_ratio,
        "wasted_work": asdict(report.wasted)
        | {"wasted_s": report.wasted.wasted_s, "share": report.wasted.share},
        "attempts": [asdict(attempt) for attempt in report.attempts],
        "slowest": [_summary(each) for each in report.slowest],
        "failures_by_kind": dict(report.failures_by_kind),
        "failures": [asdict(each) for each in report.failures],
        "accuracy": _accuracy_fields(report.accuracy),
        "folders": [asdict(each) for each in report.folders],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def write_report(report: BatchReport, store: OutputStore) -> None:
    """Writes report.json, report.html and, where Matplotlib is installed, report.png."""
    files = store.files
    picture = draw_charts(report)
    if picture is None:
        files.remove("report.png")
    else:
        files.put("report.png", picture)
    files.put("report.html", render_page(report, picture, store.text_path_of).encode())
    files.put(_JSON, report_json(report).encode())


def report_of(
    store: OutputStore,
    ids: Collection[str],
    attempts: Sequence[Attempt],
    expected: Mapping[str, str] | None = None,
) -> BatchReport:
    """Builds the report of a job from its results and failures.

    Args:
        store: of the job.
        ids: of its recordings.
        attempts: those of its configuration, from `AttemptJournal.attempts`.
        expected: fingerprints by id, see `build_report`.
    """
    summaries = store.summaries().values()
    return build_report(ids, summaries, store.failures(), attempts, expected)


def read_report(output: str) -> dict[str, JsonValue]:
    """Returns the content of an output's report.json.

    Raises:
        ConfigurationError: there is none, or the output cannot be read.
    """
    try:
        content = open_files(output).read(_JSON)
    except (OSError, ImportError, ValueError) as error:
        raise ConfigurationError(f"{plain_uri(output)} cannot be read: {error}") from None
    if content is None:
        raise ConfigurationError(
            f"{plain_uri(output)} has no {_JSON}: it is written at the end of a job"
        )
    report: dict[str, JsonValue] = json.loads(content)
    return report


def describe_report(report: Mapping[str, JsonValue]) -> str:
    """Returns a short summary of a report.json for a terminal."""
    totals, wasted = _object(report, "totals"), _object(report, "wasted_work")
    shares = _object(_object(report, "stages"), "share")
    lines = [
        f"{_number(totals, 'num_finished'):,.0f} of {_number(totals, 'num_recordings'):,.0f} "
        f"recordings finished ({_number(totals, 'num_partial'):,.0f} partial), "
        f"{_number(totals, 'num_failed'):,.0f} failed, "
        f"{_number(totals, 'num_missing'):,.0f} not done yet",
        f"{_number(totals, 'audio_hours'):,.2f} h of audio in "
        f"{duration_text(_number(totals, 'wall_s'))}: "
        f"{_number(totals, 'rtfx'):,.1f} times real time",
        "compute: " + ", ".join(f"{name} {_number(shares, name):.1%}" for name in shares),
        f"work lost: {duration_text(_number(wasted, 'wasted_s'))} of speech, "
        f"{_number(wasted, 'share'):.1%}",
    ]
    if report.get("padding_ratio") is not None:
        lines.append(f"padding: {_number(report, 'padding_ratio'):.1%}")
    if report.get("accuracy") is not None:
        accuracy = _object(report, "accuracy")
        lines.append(
            f"CER: {_number(accuracy, 'cer'):.2%} over "
            f"{_number(accuracy, 'num_references'):,.0f} references"
        )
    kinds = _object(report, "failures_by_kind")
    lines.extend(f"failed, {kind}: {_number(kinds, kind):,.0f}" for kind in kinds)
    return "\n".join(lines)


def _object(fields: Mapping[str, JsonValue], name: str) -> Mapping[str, JsonValue]:
    value = fields.get(name)
    return value if isinstance(value, dict) else {}


def _number(fields: Mapping[str, JsonValue], name: str) -> float:
    value = fields.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _accuracy_fields(accuracy: Accuracy | None) -> dict[str, object] | None:
    if accuracy is None:
        return None
    return {
        "cer": accuracy.cer,
        "num_references": accuracy.num_references,
        "num_reference_characters": accuracy.num_characters,
        "num_edits": accuracy.num_edits,
        "worst": [_summary(each) for each in accuracy.worst],
    }


def _summary(each: ResultSummary) -> dict[str, object]:
    return asdict(each) | {"compute_s": compute_s(each), "cer": each.cer}


_MAX_KINDS = 8


def draw_charts(report: BatchReport) -> bytes | None:
    """Returns a PNG of stages, lengths, attempts and failures; None without Matplotlib."""
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    picture = io.BytesIO()
    with rc_context({"font.size": 13}):
        figure = Figure(figsize=(12, 9), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, 2)
        _stages(axes[0][0], report)
        _lengths(axes[0][1], report)
        _attempts(axes[1][0], report)
        _failures(axes[1][1], report)
        figure.savefig(picture, format="png", dpi=150)
    return picture.getvalue()


def _stages(axes: Axes, report: BatchReport) -> None:
    shares = report.stages.shares()
    axes.barh(list(shares), [share * 100 for share in shares.values()], color="tab:blue")
    axes.set_xlabel("compute [%]")
    axes.set_xlim(0, 100)
    axes.invert_yaxis()
    axes.set_title("stages")


def _lengths(axes: Axes, report: BatchReport) -> None:
    minutes = [max(each.audio_s, 0.1) / 60 for each in report.results]
    compute = [max(compute_s(each), 1e-4) for each in report.results]
    axes.scatter(minutes, compute, s=6, alpha=0.5, color="tab:green", edgecolors="none")
    if minutes:
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.set_xlabel("recording [min]")
    axes.set_ylabel("compute [s]")
    axes.grid(alpha=0.3)
    axes.set_title("recordings")


def _attempts(axes: Axes, report: BatchReport) -> None:
    numbers = [attempt.number for attempt in report.attempts]
    hours = [attempt.recognized_s / 3600 for attempt in report.attempts]
    colors = [
        "tab:blue" if attempt.end == "completed" else "tab:orange" for attempt in report.attempts
    ]
    axes.bar(numbers, hours, color=colors)
    axes.set_xticks(numbers)
    axes.set_xlabel("attempt (orange: did not complete)")
    axes.set_ylabel("speech recognized [h]")
    axes.set_title(f"attempts; {report.wasted.share:.1%} of the work lost")


def _failures(axes: Axes, report: BatchReport) -> None:
    axes.set_title(f"failures by kind; {report.totals.num_failed:,} in all")
    kinds = report.failures_by_kind[:_MAX_KINDS]
    if not kinds:
        axes.set_axis_off()
        return
    axes.barh([kind for kind, _ in kinds], [num for _, num in kinds], color="tab:red")
    axes.set_xlabel("recordings")
    axes.set_xlim(left=0)
    axes.invert_yaxis()
