"""The report's picture."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from serve_app.batch.report_data import BatchReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_KINDS = 8


def draw_charts(report: BatchReport) -> bytes | None:
    """Returns a PNG of stages, lengths, attempts and failures; None without Matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    _stages(axes[0][0], report)
    _lengths(axes[0][1], report)
    _attempts(axes[1][0], report)
    _failures(axes[1][1], report)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()


def _stages(axes: Axes, report: BatchReport) -> None:
    shares = report.stages.shares()
    axes.barh(list(shares), [share * 100 for share in shares.values()], color="tab:blue")
    axes.set_xlabel("compute [%]")
    axes.set_xlim(0, 100)
    axes.invert_yaxis()
    axes.set_title("stages")


def _lengths(axes: Axes, report: BatchReport) -> None:
    minutes = [max(audio_s, 0.1) / 60 for audio_s, _ in report.lengths_s]
    compute = [max(seconds, 1e-4) for _, seconds in report.lengths_s]
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
    axes.set_ylabel("speech recognised [h]")
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
