from __future__ import annotations

from dataclasses import replace

from serve_app.modeltools.memory_bench import MeasuredRow, markdown

ROW = MeasuredRow(
    "asr", "ASR only", ("large",), False, 880_000_000, 200_000_000, 1.25, 1_300_000_000,
    1_200_000_000, 1_400_000_000, None, 12.34, 15.0,
)  # fmt: skip


def test_row_has_its_figures_in_megabytes() -> None:
    assert "| ASR only | large | 880 | 1.2 | 1,300 | 1,200 | 1,400 | 12.3 | 15.0 |" in markdown(
        [ROW]
    )


def test_gpu_column_is_shown_only_with_a_gpu() -> None:
    assert "GPU" not in markdown([ROW])
    table = markdown([ROW, replace(ROW, gpu_bytes=500_000_000)])
    assert "| GPU MB |" in table
    assert "| 1,400 | 500 | 12.3 | 15.0 |" in table
    assert "| 1,400 | - | 12.3 | 15.0 |" in table


def test_random_weights_are_marked_and_explained() -> None:
    table = markdown([replace(ROW, is_random=True)])
    assert "large\\*" in table
    assert "random weights of the published architecture" in table
    assert "random" not in markdown([ROW])


def test_row_without_measurements_gives_the_reason() -> None:
    table = markdown([replace(ROW, problem="no room")])
    assert "| ASR only | large | - | - | - | - | - | - | - |" in table
    assert "ASR only: not measured: no room" in table


def test_lines_have_as_many_cells_as_the_head() -> None:
    lines = [
        line for line in markdown([ROW, replace(ROW, gpu_bytes=1)]).splitlines() if "|" in line
    ]
    assert len({line.count("|") for line in lines}) == 1
