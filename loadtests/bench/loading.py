"""Imports and loading: time, peak memory, and what a second replica costs.

As a command, one process that imports, loads and answers once; nothing heavy may be imported
here outside of what is measured.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from loadtests.harness.child import Child, hold, run_child, send
from loadtests.harness.report import Cell, Report, megabytes
from loadtests.harness.watch import forget_peak, memory, private_and_proportional_bytes

if TYPE_CHECKING:
    from loadtests.bench.options import Options

OURS, AUTO = "Paraserve", "AutoModel"
_MODULE = "loadtests.bench.loading"
_COLUMNS = (
    *("peer", "import torch s", "import s", "load s", "MB imported", "peak MB"),
    *("peak over imports / weights", "MB ready", "2nd replica private MB", "2nd replica PSS MB"),
)


def compare(options: Options, report: Report) -> None:
    """Measures each load in a fresh process, in turns, then pairs of processes."""
    from loadtests.bench.options import open_named, short

    pack = open_named(options.pack)
    weights_bytes = pack.weights.stat().st_size
    directory = str(pack.directory)
    report.table(
        f"Loading {short(options.pack)} ({megabytes(weights_bytes):.0f} MB of weights), median "
        f"of {options.repeats} fresh processes",
        _COLUMNS,
        ("weights come from the page cache: every run but the first finds them there",),
    )
    loads: dict[str, list[list[float]]] = {OURS: [], AUTO: []}
    second: dict[str, tuple[int, int]] = {}
    for _ in range(options.repeats):
        for name in list(loads):
            try:
                child: Any = run_child(_MODULE, name, directory)
            except RuntimeError as error:
                report.note(f"{name} was not run: {error}")
                del loads[name]
            else:
                loads[name].append(child)
                report.rows(_row(name, loads[name], None, weights_bytes) for name in loads)
    for name in loads:
        second[name] = _second_replica(name, directory)
    report.rows(_row(name, runs, second[name], weights_bytes) for name, runs in loads.items())
    rows, names = report.tables[-1].rows, list(loads)
    loaded_s = [float(row[2] or 0) + float(row[3] or 0) for row in rows]
    report.bars(
        ("import and load, s", names, loaded_s),
        ("peak MB", names, [row[5] for row in rows]),
        ("second replica, private MB", names, [row[8] for row in rows]),
    )


def _row(
    name: str, runs: list[list[float]], second: tuple[int, int] | None, weights_bytes: int
) -> tuple[Cell, ...]:
    if not runs:
        return name, *([None] * (len(_COLUMNS) - 1))
    torch_s, import_s, ready_s, imported, peak, ready = map(median, zip(*runs, strict=True))
    return (
        *(name, torch_s, import_s, ready_s),
        *map(megabytes, (imported, peak)),
        (peak - imported) / weights_bytes,
        megabytes(ready),
        *([None, None] if second is None else map(megabytes, second)),
    )


def _second_replica(name: str, directory: str) -> tuple[int, int]:
    """Has two processes load the model; returns private and proportional bytes of the second."""
    with ExitStack() as stack:
        for _ in range(2):
            child = Child(_MODULE, name, directory)
            stack.callback(child.release)
            child.result()
        return private_and_proportional_bytes(child.pid)


def measure(name: str, directory: Path) -> tuple[list[float], object]:
    """Imports and loads in this process.

    Returns:
        Importing PyTorch, which both need; importing everything else; from there to a model that
        has answered once, in s; the bytes resident after the imports, at most since, and at the
        end. And the model, which must stay alive.
    """
    begin_s = time.perf_counter()
    import torch

    torch_s = time.perf_counter()
    if name == OURS:
        import serve_app.engines.paraformer.cpu  # noqa: F401
    else:
        import funasr  # noqa: F401
    imported_s = time.perf_counter()
    torch.set_num_threads(1)
    imported_bytes = memory().resident_bytes
    forget_peak()
    load_s = time.perf_counter()
    model = _load_ours(directory) if name == OURS else _load_auto(directory)
    took_s = [torch_s - begin_s, imported_s - torch_s, time.perf_counter() - load_s]
    held = memory()
    return [*took_s, imported_bytes, held.peak_bytes, held.resident_bytes], model


def _load_ours(directory: Path) -> object:
    from serve_app.engines.paraformer.cpu import ParaformerEngine
    from serve_app.packs.pack import open_pack

    # It warms up by itself.
    return ParaformerEngine(open_pack(directory))


def _load_auto(directory: Path) -> object:
    import numpy as np
    from funasr import AutoModel

    model = AutoModel(
        model=str(directory),
        device="cpu",
        ncpu=1,
        disable_update=True,
        disable_pbar=True,
        log_level="ERROR",
    )
    noise = np.random.default_rng(0).integers(-1000, 1000, 16_000).astype(np.float32)
    model.generate(noise / 32_768)
    return model


if __name__ == "__main__":
    measured, kept = measure(sys.argv[1], Path(sys.argv[2]))
    send(measured)
    hold()
