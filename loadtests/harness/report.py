"""The report of every load test: tables and promises, in files that grow as results come."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cell: TypeAlias = str | float | int | None


@dataclass(slots=True)
class Table:
    """Rows under columns; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Returns it aligned for a terminal."""
        lines = [self.columns, *map(shown, self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        body = [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([self.title, *body, *self.notes])

    def markdown(self) -> str:
        """Returns it as a page of the documentation would have it."""
        rule = ("---", *("---:" for _ in self.columns[1:]))
        body = ["| " + " | ".join(line) + " |" for line in (self.columns, rule)]
        body += ["| " + " | ".join(shown(row)) + " |" for row in self.rows]
        return "\n".join([f"**{self.title}**", "", *body, "", *(f"- {n}" for n in self.notes)])


@dataclass(frozen=True, slots=True)
class Promise:
    """What the service, or an engine, is to hold, and what was found."""

    promise: str
    found: str
    kept: bool


class Report:
    """What one run finds out; use it in a `with` block.

    Every row is in NAME.json, NAME.txt and NAME.md as soon as it is known, so that a run that is
    interrupted or killed keeps its results. The text is printed as well, and at the end of the
    block the figure is drawn, where matplotlib is installed.

    Args:
        name: of the command.
        options: of the command line, with `out`, the directory of the files.
    """

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.tables: list[Table] = []
        self.promises: list[Promise] = []
        self.complete = False
        self.machine = machine()
        self._name = name
        self._command = shlex.join(["python", "-m", "loadtests", *options.command_line])
        self._directory: Path = options.out
        self._num_printed = 0
        self._draw: Callable[[Figure], None] | None = None
        self._handler: signal.Handlers | Callable[..., object] | int | None = signal.SIG_DFL

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.complete = error is None
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handler)
        self.machine += f"; load {os.getloadavg()[0]:.1f} after"
        if error is not None:
            self.machine += f"; INTERRUPTED by {type(error).__name__}"
        self.save()
        self._print_tables(len(self.tables))
        rest = [self.promise_table().text()] if self.promises else []
        print(*rest, self.machine, sep="\n", flush=True)
        drawn = self._drawn()
        print(f"in {self._directory}: {self._name}.txt, .md, .json" + (", .png" if drawn else ""))

    @property
    def exit_code(self) -> int:
        """0 if the run came to its end and every promise was kept."""
        return 0 if self.complete and all(one.kept for one in self.promises) else 1

    def say(self, message: str) -> None:
        """Prints how far the run is."""
        print(message, flush=True)

    def table(self, title: str, columns: Sequence[str], notes: Iterable[str] = ()) -> Table:
        """Begins a table; the ones before it are printed."""
        self._print_tables(len(self.tables))
        self.tables.append(Table(title, tuple(columns), [], list(notes)))
        return self.tables[-1]

    def row(self, *cells: Cell, table: Table | None = None) -> None:
        """Adds a row to the last table, or to another one."""
        (self.tables[-1] if table is None else table).rows.append(cells)
        self.save()

    def rows(self, rows: Iterable[Sequence[Cell]], table: Table | None = None) -> None:
        """Replaces all rows of the last table, or of another one."""
        (self.tables[-1] if table is None else table).rows = [tuple(row) for row in rows]
        self.save()

    def note(self, text: str, table: Table | None = None) -> None:
        """Adds a line below the last table, or another one."""
        (self.tables[-1] if table is None else table).notes.append(text)
        self.save()

    def promise(self, promise: str, found: str, kept: bool) -> None:
        self.promises.append(Promise(promise, found, kept))
        self.save()

    def promise_table(self) -> Table:
        rows: list[tuple[Cell, ...]] = [
            (one.promise, one.found, "yes" if one.kept else "NO") for one in self.promises
        ]
        return Table("Promises", ("promise", "found", "kept"), rows)

    def bars(self, *charts: tuple[str, Sequence[Cell], Sequence[Cell]]) -> None:
        """Draws bar charts at the end: the title, the labels and the values of each."""

        def draw(figure: Figure) -> None:
            figure.set_size_inches(5.5 * len(charts), 3.5)
            for axes, (title, labels, values) in zip(
                figure.subplots(1, len(charts), squeeze=False)[0], charts, strict=True
            ):
                bars = axes.barh([*map(str, labels)], [float(value or 0) for value in values])
                axes.bar_label(bars, fmt="%.4g", padding=2)
                axes.margins(x=0.15)
                axes.invert_yaxis()
                axes.set_title(title)

        self.draw(draw)

    def draw(self, draw: Callable[[Figure], None]) -> None:
        """Has a figure drawn into NAME.png at the end."""
        self._draw = draw

    def save(self) -> None:
        """Writes what is known so far."""
        promised = [self.promise_table()] if self.promises else []
        tables = [*self.tables, *promised]
        head = f"{self._command}\n\n{self.machine}"
        contents = {
            "txt": "\n\n".join([head, *(table.text() for table in tables)]),
            "md": "\n\n".join(
                [f"`{self._command}`", self.machine, *(t.markdown() for t in tables)]
            ),
            "json": json.dumps(self._json(), indent=2, ensure_ascii=False),
        }
        for suffix, content in contents.items():
            path = self._directory / f"{self._name}.{suffix}"
            part = path.with_suffix(f".{suffix}.part")
            part.write_text(content + "\n", encoding="utf-8")
            part.replace(path)

    def _json(self) -> dict[str, object]:
        return {
            "name": self._name,
            "command": self._command,
            "machine": self.machine,
            "complete": self.complete,
            "tables": [asdict(table) for table in self.tables],
            "promises": [asdict(one) for one in self.promises],
        }

    def _print_tables(self, until: int) -> None:
        for table in self.tables[self._num_printed : until]:
            print(f"\n{table.text()}", flush=True)
        self._num_printed = until

    def _drawn(self) -> bool:
        if self._draw is None:
            return False
        try:
            from matplotlib.figure import Figure
        except ImportError:
            return False
        figure = Figure(figsize=(9, 7), layout="tight")
        self._draw(figure)
        figure.savefig(self._directory / f"{self._name}.png", dpi=120)
        return True


def parser(
    name: str, description: str | None, out: str = "bench-results"
) -> argparse.ArgumentParser:
    """Returns the parser of a command, with what all have."""
    made = argparse.ArgumentParser(
        prog=f"python -m loadtests {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--out", type=Path, default=Path(out), help="directory of the report")
    return made


def parse(made: argparse.ArgumentParser, given: Sequence[str] | None) -> argparse.Namespace:
    """Returns the options, and the command line itself as `command_line`."""
    arguments = list(sys.argv[1:] if given is None else given)
    options = made.parse_args(arguments)
    options.command_line = [*made.prog.split()[3:], *arguments]
    return options


def machine() -> str:
    """Returns one line on where figures were taken."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return (
        f"{next(models, platform.machine())}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, PyTorch {metadata.version('torch')}; "
        f"load {os.getloadavg()[0]:.1f} before"
    )


def mib(num_bytes: float) -> float:
    return round(num_bytes / 2**20, 1)


def megabytes(num_bytes: float) -> float:
    return round(num_bytes / 1e6, 1)


def shown(row: Iterable[Cell]) -> tuple[str, ...]:
    """Returns the cells of a row as they are printed; floats have two digits, None is a dash."""
    return tuple(
        "-" if cell is None else f"{cell:,.2f}" if isinstance(cell, float) else str(cell)
        for cell in row
    )
