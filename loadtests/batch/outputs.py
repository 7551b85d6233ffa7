"""What jobs have written, read without their own code."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

# How long things took, which no two runs agree on.
_NOT_COMPARED = frozenset({"times", "uri"})


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
