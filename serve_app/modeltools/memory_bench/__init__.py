"""Measures memory and speed of each stage on this machine, alone and together."""

from serve_app.modeltools.memory_bench.packs import BenchPacks, PackChoice, choose_packs
from serve_app.modeltools.memory_bench.rows import Row, rows_of
from serve_app.modeltools.memory_bench.running import MeasuredRow, markdown, measure_rows

__all__ = [
    "BenchPacks",
    "MeasuredRow",
    "PackChoice",
    "Row",
    "choose_packs",
    "markdown",
    "measure_rows",
    "rows_of",
]
