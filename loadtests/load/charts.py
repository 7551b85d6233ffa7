"""Pictures of a run; only where matplotlib is installed (extra `bench`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests.load.mixes import class_name, in_order
from loadtests.load.outcomes import Fate, Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BIN_S = 5.0


def draw_run(outcomes: Sequence[Outcome], path: Path) -> bool:
    """Draws latencies and throughput over time; returns whether it could."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (latencies, throughput) = pyplot.subplots(2, 1, figsize=(9, 7), sharex=True)
    _draw_latencies(latencies, outcomes)
    _draw_throughput(throughput, outcomes)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True


def _draw_latencies(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    for name in in_order(class_name(outcome.audio_s) for outcome in outcomes):
        right = [o for o in outcomes if o.fate is Fate.RIGHT and class_name(o.audio_s) == name]
        axes.plot(
            [outcome.arrival.at_s for outcome in right],
            [outcome.complete_s for outcome in right],
            ".",
            label=name,
        )
    lost = [outcome for outcome in outcomes if outcome.lost]
    if lost:
        axes.plot([o.arrival.at_s for o in lost], [o.complete_s for o in lost], "rx", label="lost")
    axes.set_yscale("log")
    axes.set_ylabel("s until complete")
    axes.legend(loc="upper left")


def _draw_throughput(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    offered: dict[int, float] = {}
    answered: dict[int, float] = {}
    refused: dict[int, float] = {}
    for outcome in outcomes:
        due = int(outcome.arrival.at_s // _BIN_S)
        offered[due] = offered.get(due, 0.0) + outcome.audio_s
        if outcome.fate is Fate.RIGHT:
            done = int((outcome.arrival.at_s + outcome.complete_s) // _BIN_S)
            answered[done] = answered.get(done, 0.0) + outcome.audio_s
        elif outcome.fate is Fate.REFUSED:
            refused[due] = refused.get(due, 0.0) + outcome.audio_s
    for label, bins in (("offered", offered), ("answered right", answered), ("429", refused)):
        if bins:
            numbers = range(max(bins) + 1)
            axes.step(
                [number * _BIN_S for number in numbers],
                [bins.get(number, 0.0) / _BIN_S for number in numbers],
                where="post",
                label=label,
            )
    axes.set_xlabel("s since the start")
    axes.set_ylabel("audio s per s")
    axes.legend(loc="upper left")
