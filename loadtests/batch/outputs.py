"""What jobs have written, read without their own code."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# How long things took, which no two runs agree on.
_NOT_COMPARED = frozenset({"times", "uri"})


@dataclass(frozen=True, slots=True)
class Comparison:
    """A job's outputs beside those of a job that nothing happened to.

    Attributes:
        num_outputs: transcripts.
        num_twice: recordings with more than one.
        num_missing: recordings of the clean run that have none.
        different: ids of those that are not equal.
        num_failures: lines of failures.jsonl.
        without_reason: ids of failures that do not say why.
        num_leftovers: files that are neither output nor record.
    """

    num_outputs: int
    num_twice: int
    num_missing: int
    different: tuple[str, ...]
    num_failures: int
    without_reason: tuple[str, ...]
    num_leftovers: int


def compare(output: Path, clean: Path) -> Comparison:
    found, twice = read_transcripts(output)
    expected, _ = read_transcripts(clean)
    failures = read_failures(output)
    return Comparison(
        len(found),
        twice,
        len(expected.keys() - found.keys()),
        tuple(sorted(key for key in found if found[key] != expected.get(key))),
        len(failures),
        tuple(str(one["id"]) for one in failures if not one["reason"] or not one["kind"]),
        sum(path.name.startswith(".part-") for path in output.rglob("*") if path.is_file()),
    )


def read_transcripts(output: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Returns the transcripts by id, and how many ids have more than one."""
    found: dict[str, dict[str, Any]] = {}
    seen: Counter[str] = Counter()
    for path in (output / "transcripts").rglob("*.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        seen[document["id"]] += 1
        found[document["id"]] = {
            key: value for key, value in document.items() if key not in _NOT_COMPARED
        }
    return found, sum(count > 1 for count in seen.values())


def read_failures(output: Path) -> list[dict[str, Any]]:
    path = output / "failures.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_progress(output: Path) -> dict[str, Any] | None:
    """Returns the job's last word on its progress, None before the first."""
    try:
        progress: dict[str, Any] = json.loads((output / "_run" / "progress.json").read_text())
    except FileNotFoundError:
        return None
    return progress
