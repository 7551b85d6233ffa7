"""Writes the list of the built-in packs' checksums.

Run `python -m recipes.demo_packs.checksums` after the recipe has exported new packs.
"""

from __future__ import annotations

import json
from pathlib import Path

from serve_app.packs.integrity import BUILTIN_CHECKSUMS_NAME, BUILTIN_DIRECTORY, sha256_of


def hash_builtin_files(builtin: Path) -> dict[str, dict[str, str]]:
    """Returns {directory: {file: sha256}} of what lies under `builtin`."""
    listed: dict[str, dict[str, str]] = {}
    for path in sorted(builtin.glob("*/**/*")):
        directory_name, *rest = path.relative_to(builtin).parts
        if path.is_file() and path.suffix not in {".py", ".pyc"}:
            listed.setdefault(directory_name, {})["/".join(rest)] = sha256_of(path)
    return listed


def write_builtin_checksums(builtin: Path) -> Path:
    """Rewrites the list from the existing files; returns its path."""
    path = builtin / BUILTIN_CHECKSUMS_NAME
    text = json.dumps(hash_builtin_files(builtin), indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    print(f"wrote {write_builtin_checksums(BUILTIN_DIRECTORY)}")
