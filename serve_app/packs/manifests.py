"""The record of a pack's files that lies beside them: `paraserve-pack.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from serve_app.core.errors import PackCorrupt

MANIFEST_NAME = "paraserve-pack.json"
WEIGHTS_NAME = "model.pt"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What a file must be; the size only makes a difference show sooner."""

    path: str
    sha256: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """Where a pack came from and what was received then.

    `kind` is set where a pack was made here: `paraformer-onnx` by an export.
    """

    name: str
    source: str
    revision: str | None
    fetched_at: str
    files: tuple[FileRecord, ...]
    kind: str | None = None

    def write(self, directory: Path) -> None:
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        (directory / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")


def read_manifest(directory: Path, pack: str) -> Manifest | None:
    """Reads the record of a pack; None when the directory has none.

    Raises:
        PackCorrupt: the record is there but cannot be read.
    """
    path = directory / MANIFEST_NAME
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Manifest(
            name=str(record["name"]),
            source=str(record["source"]),
            revision=None if record["revision"] is None else str(record["revision"]),
            fetched_at=str(record["fetched_at"]),
            files=tuple(
                FileRecord(
                    path=str(file["path"]),
                    sha256=str(file["sha256"]),
                    size_bytes=_optional_int(file.get("size_bytes")),
                )
                for file in record["files"]
            ),
            kind=None if record.get("kind") is None else str(record["kind"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PackCorrupt(
            pack,
            f"its record {path} cannot be read ({type(error).__name__}: {error})",
            "Remove the directory and pull the pack again",
        ) from error


def _optional_int(value: object) -> int | None:
    if value is None:
        return None
    return int(str(value))
