"""The arithmetic and the tables of the benchmarks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.bench.measuring import Cost, Stopwatch, interleaved, median_cost
from loadtests.bench.tables import Comparison, Table

TABLE = Table("Speed", ("peer", "RTFx"), (("ours", 1234.5), ("the other", 7)), ("a note",))


def test_median_takes_each_clock_for_itself() -> None:
    costs = [Cost(1.0, 9.0), Cost(5.0, 1.0), Cost(2.0, 4.0)]
    assert median_cost(costs) == Cost(2.0, 4.0)


def test_median_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no measurements"):
        median_cost([])


def test_peers_take_turns() -> None:
    order: list[str] = []
    costs = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 3
    assert set(costs) == {"a", "b"}


def test_stopwatch_leaves_results_alone_and_adds_up() -> None:
    class Worker:
        def double(self, number: int) -> int:
            return 2 * number

        def count(self) -> Iterator[int]:
            yield from range(3)

    watch, worker = Stopwatch(), Worker()
    watch.watch(worker, "double", "doubling")
    watch.watch_iteration(worker, "count", "counting")
    assert worker.double(4) == 8
    assert list(worker.count()) == [0, 1, 2]
    assert set(watch.spent_s) == {"doubling", "counting"}


def test_text_is_aligned() -> None:
    title, head, first, second, note = TABLE.text().splitlines()
    assert (title, note) == ("Speed", "a note")
    assert first == "ours       1,234.50"
    assert len(head) == len(first) == len(second)


def test_markdown_has_a_row_for_each_peer() -> None:
    assert "| ours | 1,234.50 |\n| the other | 7 |" in TABLE.markdown()
    assert TABLE.markdown().endswith("- a note")


def test_comparison_is_written_as_text_markdown_and_json(tmp_path: Path) -> None:
    written = Comparison("engine", "the command", "the machine", (TABLE,)).write(tmp_path)
    assert [path.name for path in written] == ["engine.txt", "engine.md", "engine.json"]
    parsed = json.loads((tmp_path / "engine.json").read_text())
    assert parsed["tables"][0]["rows"][0] == ["ours", 1234.5]
    assert "`the command`" in (tmp_path / "engine.md").read_text()
