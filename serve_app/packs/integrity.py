"""SHA-256 of pack files: computes them, records them in `paraserve-pack.json`, compares them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from serve_app.core.errors import PackCorrupt, PackIncomplete

BUILTIN_DIRECTORY = Path(__file__).parent / "builtin"
BUILTIN_CHECKSUMS_NAME = "checksums.json"

# Hashing this much takes tens of milliseconds, so a start always does it.
_ALWAYS_HASHED_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class FileCheck:
    """The comparison of a file with its record; `problem` is None if they agree.

    `actual_sha256` is None if the file is missing or was not hashed, `expected_sha256` if
    there is no record.
    """

    path: str
    expected_sha256: str | None
    actual_sha256: str | None
    problem: str | None

    @property
    def is_missing(self) -> bool:
        return self.problem == "missing"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_files(directory: Path) -> tuple[FileRecord, ...]:
    """Hashes every file in `directory` itself, in order of name."""
    return tuple(
        FileRecord(path.name, sha256_of(path), path.stat().st_size)
        for path in sorted(directory.iterdir())
        if path.is_file()
    )


def check_fully(directory: Path, records: Iterable[FileRecord]) -> tuple[FileCheck, ...]:
    """Hashes every recorded file."""
    return tuple(_check(directory, record, always_hash=True) for record in records)


def check_quickly(directory: Path, records: Iterable[FileRecord]) -> tuple[FileCheck, ...]:
    """Compares sizes and hashes small files.

    Opening a pack hashes its weights anyway; a start need not read a gigabyte twice.
    """
    return tuple(_check(directory, record, always_hash=False) for record in records)


def raise_for_problems(pack: str, checks: Iterable[FileCheck], remedy: str) -> None:
    """Raises an error if a file is missing or differs.

    Raises:
        PackIncomplete: files are missing.
        PackCorrupt: files differ from their records.
    """
    wrong = [check for check in checks if check.problem]
    if not wrong:
        return
    problem = "; ".join(f"{check.path}: {check.problem}" for check in wrong)
    if all(check.is_missing for check in wrong):
        raise PackIncomplete(pack, problem, remedy)
    raise PackCorrupt(pack, problem, remedy)


def _check(directory: Path, record: FileRecord, *, always_hash: bool) -> FileCheck:
    path = directory / record.path
    if not path.is_file():
        return FileCheck(record.path, record.sha256, None, "missing")
    size_bytes = path.stat().st_size
    if record.size_bytes is not None and size_bytes != record.size_bytes:
        problem = f"has {size_bytes} bytes instead of {record.size_bytes}"
        return FileCheck(record.path, record.sha256, None, problem)
    if not always_hash and size_bytes > _ALWAYS_HASHED_BYTES:
        return FileCheck(record.path, record.sha256, None, None)
    actual = sha256_of(path)
    differs = None if actual == record.sha256 else f"sha256 is {actual[:16]}…, not as recorded"
    return FileCheck(record.path, record.sha256, actual, differs)


def read_builtin_checksums(builtin: Path) -> dict[str, tuple[FileRecord, ...]]:
    """Reads the committed checksums by directory; empty without a list."""
    path = builtin / BUILTIN_CHECKSUMS_NAME
    if not path.is_file():
        return {}
    listed = json.loads(path.read_text(encoding="utf-8"))
    return {
        str(directory): tuple(FileRecord(str(file), str(value)) for file, value in files.items())
        for directory, files in listed.items()
    }


MANIFEST_NAME = "paraserve-pack.json"
WEIGHTS_NAME = "model.pt"
CONFIG_NAME = "config.yaml"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """The expected content of a file; the size only speeds up the check."""

    path: str
    sha256: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """The origin of a pack and the checksums of its files.

    `kind` is set for packs that were made locally: `paraformer-onnx` by an export.
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
    """Reads the record of a pack; None if the directory has none.

    Raises:
        PackCorrupt: the record cannot be read.
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
