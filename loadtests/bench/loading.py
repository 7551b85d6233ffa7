"""Imports and loading: time, peak memory, and what a second replica costs."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from loadtests.bench.loading_child import AUTO, OURS, Load
from loadtests.bench.measuring import Child, machine, private_bytes, proportional_bytes, run_child
from loadtests.bench.options import Options, open_named, short
from loadtests.bench.tables import Bar, Comparison, Table, megabytes

_MODULE = "loadtests.bench.loading_child"


@dataclass(frozen=True, slots=True)
class Replica:
    """Memory of the second of two processes with the same model."""

    private_bytes: int
    proportional_bytes: int


def compare(options: Options, command: str) -> Comparison:
    """Measures each load in a fresh process, in turns, then pairs of processes."""
    where = machine()
    pack = open_named(options.pack)
    weights_bytes = pack.weights.stat().st_size
    directory = str(pack.directory)
    loads: dict[str, list[Load]] = {OURS: [], AUTO: []}
    notes = ["weights come from the page cache: every run but the first finds them there"]
    for _ in range(options.repeats):
        for name, measured in list(loads.items()):
            try:
                child: Any = run_child(_MODULE, [name, directory])
            except RuntimeError as error:
                notes.append(f"{name} was not run: {error}")
                del loads[name]
            else:
                measured.append(Load(*child))
    second = {name: _second_replica(name, directory) for name in loads}
    rows = tuple(
        _row(name, measured, second[name], weights_bytes) for name, measured in loads.items()
    )
    table = Table(
        f"Loading {short(options.pack)} ({megabytes(weights_bytes):.0f} MB of weights), median "
        f"of {options.repeats} fresh processes",
        (
            "peer",
            "import torch s",
            "import s",
            "load s",
            "MB imported",
            "peak MB",
            "peak over imports / weights",
            "MB ready",
            "2nd replica private MB",
            "2nd replica PSS MB",
        ),
        rows,
        tuple(notes),
    )
    names = tuple(loads)
    charts = (
        Bar("import and load, s", names, tuple(float(row[2]) + float(row[3]) for row in rows)),
        Bar("peak MB", names, tuple(float(row[5]) for row in rows)),
        Bar("second replica, private MB", names, tuple(float(row[8]) for row in rows)),
    )
    return Comparison("loading", command, where, (table,), charts)


def _row(
    name: str, loads: list[Load], second: Replica, weights_bytes: int
) -> tuple[str | float, ...]:
    imported_bytes = median(load.imported_bytes for load in loads)
    most_bytes = median(load.peak_bytes for load in loads)
    return (
        name,
        median(load.torch_s for load in loads),
        median(load.import_s for load in loads),
        median(load.ready_s for load in loads),
        megabytes(imported_bytes),
        megabytes(most_bytes),
        (most_bytes - imported_bytes) / weights_bytes,
        megabytes(median(load.ready_bytes for load in loads)),
        megabytes(second.private_bytes),
        megabytes(second.proportional_bytes),
    )


def _second_replica(name: str, directory: str) -> Replica:
    """Two processes load the model; the second is looked at while both live."""
    children = []
    try:
        for _ in range(2):
            children.append(Child(_MODULE, [name, directory]))
            children[-1].result()
        pid = children[-1].pid
        return Replica(private_bytes(pid), proportional_bytes(pid))
    finally:
        for child in children:
            child.release()
