"""The measurements as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence

from serve_app.modeltools.memory_bench.running import MeasuredRow

_MEGABYTE = 1_000_000


def markdown(rows: Sequence[MeasuredRow]) -> str:
    """One line a row; the column for a GPU is there if one was used."""
    on_gpu = any(row.gpu_bytes is not None for row in rows)
    heads = ["loaded", "packs", "weights MB", "load s", "resident MB", "PSS MB", "peak MB"]
    heads += ["GPU MB"] if on_gpu else []
    heads += ["RTFx", "RTFx a core"]
    lines = [_line(heads), _line(["---", "---", *["---:"] * (len(heads) - 2)])]
    lines += [_line(_cells(row, on_gpu)) for row in rows]
    notes = [f"- {row.title}: not measured: {row.problem}" for row in rows if row.problem]
    if any(row.is_random for row in rows):
        notes.append(
            "- \\*: random weights of the published architecture, which decide neither memory nor "
            "speed; what they say means nothing"
        )
    return "\n".join([*lines, "", *notes]) + "\n"


def _cells(row: MeasuredRow, on_gpu: bool) -> list[str]:
    packs = ", ".join(row.packs) + ("\\*" if row.is_random else "")
    num_figures = 7 + on_gpu
    if row.problem is not None:
        return [row.title, packs, *["-"] * num_figures]
    figures = [
        _megabytes(row.weights_bytes),
        f"{row.load_s:.1f}",
        _megabytes(row.rss_bytes),
        _megabytes(row.pss_bytes),
        _megabytes(row.peak_bytes),
    ]
    if on_gpu:
        figures.append("-" if row.gpu_bytes is None else _megabytes(row.gpu_bytes))
    speeds = ("-" if speed is None else f"{speed:,.1f}" for speed in (row.rtfx, row.rtfx_a_core))
    return [row.title, packs, *figures, *speeds]


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / _MEGABYTE:,.0f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
