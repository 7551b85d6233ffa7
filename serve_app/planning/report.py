"""A plan as a table, as JSON and as plots."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from serve_app.core.errors import ConfigurationError
from serve_app.planning.costs import Costs
from serve_app.planning.results import RunResult
from serve_app.planning.search import Goal, Plan, Trial
from serve_app.planning.service_config import ServiceShape
from serve_app.planning.trace import Seconds


def trial_table(trials: tuple[Trial, ...], goal: Goal, shape: ServiceShape) -> Table:
    """Returns a table with a row per trial."""
    waits = "queue delay" if goal.measure == "queue" else "latency"
    table = Table(
        "recognizers", "trace", "GPUs", f"{waits} p50 s", "p95 s", "refused",
        "GPU hours", "busy", "goal",
    )  # fmt: skip
    for trial in trials:
        table.add_row(
            recognizers_of(trial),
            "all" if trial.whole else "busiest",
            gpus_of(trial, shape),
            f"{goal.measured(trial.result).p50_s:.2f}",
            f"{goal.measured(trial.result).p95_s:.2f}",
            f"{trial.result.refused_share:.2%}",
            f"{trial.result.gpu_hours:,.1f}",
            f"{trial.result.utilization:.0%}",
            "met" if trial.met else "missed",
        )
    return table


def class_table(result: RunResult) -> Table:
    """Returns a table with a row per class of lengths."""
    table = Table(
        "recordings", "number", "queue delay p50 s", "p95 s", "p99 s",
        "latency p50 s", "p95 s", "p99 s",
    )  # fmt: skip
    for entry in result.classes:
        times = [
            f"{value:.2f}"
            for each in (entry.queue_delay, entry.latency)
            for value in (each.p50_s, each.p95_s, each.p99_s)
        ]
        table.add_row(entry.name, f"{entry.latency.num:,}", *times)
    return table


def recognizers_of(trial: Trial) -> str:
    if trial.mode == "fixed":
        return str(trial.max_replicas)
    return f"{trial.min_replicas} to {trial.max_replicas}"


def gpus_of(trial: Trial, shape: ServiceShape) -> str:
    """Returns the GPUs at the trial's peak, `-` for a service on CPUs."""
    num = num_gpus(trial.result.peak_replicas, shape)
    return str(num) if num else "-"


def num_gpus(num_replicas: int, shape: ServiceShape) -> int:
    """Returns the GPUs of recognizers, punctuators and speaker embedders, rounded up."""
    share = shape.recognizer.gpu_share
    others = sum(
        group.num_replicas * group.gpu_share
        for group in (shape.punctuator, shape.embedder)
        if group is not None
    )
    if share <= 0:
        return math.ceil(others)
    # A recognizer runs on one GPU; the others may use the rest of it.
    per_gpu = shape.replicas_per_gpu
    gpus = math.ceil(num_replicas / per_gpu)
    left = gpus - num_replicas * share
    return gpus + max(0, math.ceil(others - left - 1e-9))


def write_plan(
    plan: Plan, goal: Goal, shape: ServiceShape, costs: Costs, price: float | None, path: Path
) -> None:
    """Writes all results, with the costs and sizes behind them, as JSON."""
    content = {
        "goal": asdict(goal),
        "costs": asdict(costs),
        "num_ingresses": shape.num_ingresses,
        "num_segmenters": shape.num_segmenters,
        "num_speaker_embedders": shape.num_embedders,
        "price_per_gpu_hour": price,
        "fixed": _plain(plan.fixed, shape, price),
        "scaled": _plain(plan.scaled, shape, price) if plan.scaled else None,
        "trials": [_plain(trial, shape, price) for trial in plan.trials],
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _plain(trial: Trial, shape: ServiceShape, price: float | None) -> dict[str, Any]:
    result = asdict(trial.result)
    del result["timeline"]
    return {
        "mode": trial.mode,
        "min_replicas": trial.min_replicas,
        "max_replicas": trial.max_replicas,
        "whole_trace": trial.whole,
        "met": trial.met,
        "gpus_at_peak": num_gpus(trial.result.peak_replicas, shape),
        "cost": trial.result.gpu_hours * price if price is not None else None,
        **result,
    }


def check_plotting() -> None:
    """Checks that plots can be drawn, before hours of simulation.

    Raises:
        ConfigurationError: Matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401  # only to see whether it is installed
    except ImportError:
        raise ConfigurationError(
            "plots need Matplotlib: pip install 'paraserve[bench]', or leave out --plots"
        ) from None


def plot_trial(trial: Trial, title: str, path: Path) -> None:
    """Plots queue delay, recognizers, GPU hours and queued audio over the run as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    timeline = trial.result.timeline
    long = timeline.time_s[-1] > 3 * 3600
    time = timeline.time_s / (3600 if long else 60)
    figure = Figure(figsize=(10, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    delay, replicas, backlog = figure.subplots(3, 1, sharex=True)
    delay.plot(time, timeline.delay_s, color="tab:red", linewidth=0.8)
    delay.set_ylabel("longest queue delay [s]")
    replicas.step(time, timeline.replicas, where="post", label="running")
    replicas.step(time, timeline.requested, where="post", label="requested", linestyle=":")
    replicas.set_ylabel("recognizers")
    replicas.set_ylim(bottom=0)
    replicas.legend(loc="upper left")
    if trial.result.gpu_hours > 0:
        hours = replicas.twinx()
        hours.plot(time, spent_gpu_hours(trial.result), color="tab:gray", linewidth=0.8)
        hours.set_ylabel("GPU hours so far", color="tab:gray")
        hours.set_ylim(bottom=0)
    backlog.plot(time, timeline.backlog_s / 3600, color="tab:green", linewidth=0.8)
    backlog.set_ylabel("queued audio [h]")
    backlog.set_xlabel("time [h]" if long else "time [min]")
    for axes in (delay, replicas, backlog):
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def spent_gpu_hours(result: RunResult) -> Seconds:
    """Returns the GPU hours used up to each sample of the timeline.

    The total of the result is distributed in proportion to the requested recognizers.
    """
    timeline = result.timeline
    lengths_s = np.diff(timeline.time_s, prepend=timeline.time_s[0])
    spent = np.cumsum(timeline.requested * lengths_s)
    hours: Seconds = spent / max(float(spent[-1]), 1e-9) * result.gpu_hours
    return hours
