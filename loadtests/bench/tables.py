"""The result of a comparison: a table as text, Markdown and JSON, and a chart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeAlias

Cell: TypeAlias = str | float | int


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Aligned for a terminal."""
        lines = [self.columns, *(_shown(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        body = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([self.title, *body, *self.notes])

    def markdown(self) -> str:
        """As a fragment of docs/performance.md."""
        rule = ("---", *("---:" for _ in self.columns[1:]))
        lines = [self.columns, rule, *(_shown(row) for row in self.rows)]
        body = ["| " + " | ".join(line) + " |" for line in lines]
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([f"**{self.title}**", "", *body, *([""] if notes else []), *notes])


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar chart: a value for each label."""

    title: str
    labels: tuple[str, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that a command found out.

    Attributes:
        name: of the command.
        command: as it was given.
        machine: where it ran.
        tables: in order.
        charts: drawn side by side.
    """

    name: str
    command: str
    machine: str
    tables: tuple[Table, ...]
    charts: tuple[Bar, ...] = field(default=())

    def text(self) -> str:
        return "\n\n".join([*(table.text() for table in self.tables), self.machine])

    def write(self, directory: Path) -> list[Path]:
        """Writes NAME.txt, .md, .json and, where matplotlib is there, .png."""
        directory.mkdir(parents=True, exist_ok=True)
        head = f"`{self.command}`\n\n{self.machine}"
        fragment = "\n\n".join([head, *(table.markdown() for table in self.tables)])
        contents = {
            "txt": self.text(),
            "md": fragment,
            "json": json.dumps(asdict(self), indent=2, ensure_ascii=False),
        }
        written = []
        for suffix, content in contents.items():
            path = directory / f"{self.name}.{suffix}"
            path.write_text(content + "\n", encoding="utf-8")
            written.append(path)
        if self.charts and _draw(self.charts, directory / f"{self.name}.png"):
            written.append(directory / f"{self.name}.png")
        return written


def megabytes(num_bytes: float) -> float:
    return round(num_bytes / 1e6, 1)


def _shown(row: Sequence[Cell]) -> tuple[str, ...]:
    return tuple(f"{cell:,.2f}" if isinstance(cell, float) else str(cell) for cell in row)


def _draw(charts: Sequence[Bar], path: Path) -> bool:
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(charts), figsize=(5.5 * len(charts), 3.5), squeeze=False)
    for axis, chart in zip(axes[0], charts, strict=True):
        bars = axis.barh(chart.labels, chart.values)
        axis.bar_label(bars, fmt="%.4g", padding=2)
        axis.margins(x=0.15)
        axis.invert_yaxis()
        axis.set_title(chart.title)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True
