"""Lists and verifies the packs on this machine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from serve_app.core.errors import PackCorrupt, PackError, PackNotFound
from serve_app.packs.integrity import (
    BUILTIN_DIRECTORY,
    CONFIG_NAME,
    WEIGHTS_NAME,
    FileCheck,
    FileRecord,
    check_fully,
    check_quickly,
    raise_for_problems,
    read_builtin_checksums,
    read_manifest,
    sha256_of,
)
from serve_app.packs.pack import PackContents, open_pack
from serve_app.packs.registry import (
    REGISTERED,
    BuiltinSource,
    DirectorySource,
    PackKind,
    PackReference,
    WheelSource,
    find_pack,
)
from serve_app.packs.store import PackStore

_FILES_OF_KIND = {
    PackKind.ASR: "config.yaml, configuration.json, model.pt, am.mvn, tokens.json and seg_dict",
    PackKind.VAD: "config.yaml, model.pt and am.mvn",
    PackKind.PUNCTUATION: "config.yaml, configuration.json, model.pt and tokens.json",
    PackKind.WHISPER_GGML: "one ggml .bin file for whisper.cpp",
    PackKind.SPEAKERS: "config.yaml and model.pt, or what configuration.json names",
}
_FILES_OF_ANY_KIND = "config.yaml, model.pt and the files that its configuration.json names"


@dataclass(frozen=True, slots=True)
class PackStatus:
    """One line of the list of packs; `checksum` is the sha256 of its weights."""

    name: str
    source: str
    kind: PackKind | None
    size_bytes: int | None
    present: bool
    checksum: str | None
    license: str


@dataclass(frozen=True, slots=True)
class PackReport:
    """The result of `verify`.

    `compared_with` is the origin of the expected checksums: `pinned`, `built-in`, `recorded`,
    or `nothing` for a directory without a record, whose files are only checked against each
    other.
    """

    name: str
    directory: Path
    compared_with: str
    files: tuple[FileCheck, ...]
    problem: str | None

    @property
    def ok(self) -> bool:
        return self.problem is None and not any(check.problem for check in self.files)


@dataclass(frozen=True, slots=True)
class _Expectation:
    origin: str
    files: tuple[FileRecord, ...]


def list_packs(store: PackStore) -> tuple[PackStatus, ...]:
    """Returns the registered packs, then the other packs in the store."""
    known = {store.directory(reference) for reference in REGISTERED.values()}
    others = [
        reference
        for directory in sorted(store.root.glob("[!.]*"))
        if directory not in known | {store.recordings_directory}
        and (reference := _reference_of(directory)) is not None
    ]
    return tuple(_status(reference, store) for reference in (*REGISTERED.values(), *others))


def verify(name: str, store: PackStore) -> PackReport:
    """Hashes every file of a pack on this machine, and opens the pack.

    Raises:
        PackNotFound: the pack is not on this machine.
    """
    reference = find_pack(name)
    directory = locate(reference, store)
    if not directory.is_dir():
        raise absent(reference, directory)
    return report(reference, directory)


def locate(reference: PackReference, store: PackStore) -> Path:
    """Returns the directory of the pack, whether or not it exists."""
    match reference.sources[0]:
        case BuiltinSource(directory_name):
            return BUILTIN_DIRECTORY / directory_name
        case DirectorySource(path):
            return path
        case _:
            return store.directory(reference)


def open_checked(reference: PackReference, directory: Path) -> PackContents:
    """Opens a pack after a quick comparison with its checksums.

    Raises:
        PackIncomplete: files are missing.
        PackCorrupt: files differ from their checksums or contradict each other.
    """
    expected = _expectation(reference, directory)
    remedy = _repair(reference)
    raise_for_problems(reference.name, check_quickly(directory, expected.files), remedy)
    contents = open_pack(directory, reference.name)
    for record in expected.files:
        if record.path == contents.weights.name and record.sha256 != contents.checksum:
            problem = f"{record.path}: sha256 is {contents.checksum[:16]}…, not as recorded"
            raise PackCorrupt(reference.name, problem, remedy)
    # Errors so far were for the operator; from here on the name appears in responses.
    return replace(contents, name=reference.shown_name)


def absent(reference: PackReference, directory: Path) -> PackNotFound:
    """Returns the error for a missing pack, with instructions to install it."""
    source = reference.sources[0]
    name = reference.name
    if isinstance(source, BuiltinSource):
        remedy = "Reinstall Paraserve from a complete wheel, or export the pack with its recipe"
        return PackNotFound(name, f"this installation lacks {directory}", remedy)
    files = _FILES_OF_KIND[reference.kind] if reference.kind else _FILES_OF_ANY_KIND
    if isinstance(source, DirectorySource):
        return PackNotFound(name, f"{directory} is not a directory", f"Fill it with {files}")
    return PackNotFound(
        name,
        f"it is not in {directory}, and downloads are disabled",
        f"Fill {directory} with {files}: on a connected machine run `paraserve models pull "
        f"{name} --to DIR`, then copy DIR to that path",
    )


def report(reference: PackReference, directory: Path) -> PackReport:
    """Compares every file of a directory with the pack's checksums."""
    problem = None
    expected = _Expectation("nothing", ())
    try:
        expected = _expectation(reference, directory)
        open_pack(directory, reference.name)
    except PackError as error:
        problem = str(error.args[1])
    if expected.files:
        files = check_fully(directory, expected.files)
    else:
        files = tuple(
            FileCheck(path.name, None, sha256_of(path), None)
            for path in sorted(directory.iterdir())
            if path.is_file()
        )
    return PackReport(reference.name, directory, expected.origin, files, problem)


def _expectation(reference: PackReference, directory: Path) -> _Expectation:
    source = reference.sources[0]
    if isinstance(source, WheelSource):
        files = [
            FileRecord(file.file_name, file.sha256, file.size_bytes) for file in source.pin.files
        ]
        if source.pin.config:
            config = source.pin.config.encode()
            files.append(FileRecord(CONFIG_NAME, hashlib.sha256(config).hexdigest(), len(config)))
        return _Expectation("pinned", tuple(files))
    if isinstance(source, BuiltinSource):
        listed = read_builtin_checksums(BUILTIN_DIRECTORY)
        return _Expectation("built-in", listed.get(source.directory_name, ()))
    manifest = read_manifest(directory, reference.name)
    if manifest is None:
        return _Expectation("nothing", ())
    return _Expectation("recorded", manifest.files)


def _reference_of(directory: Path) -> PackReference | None:
    """Returns the pack that a directory's record names, None without a record."""
    try:
        manifest = read_manifest(directory, directory.name)
        return None if manifest is None else find_pack(manifest.name)
    except PackError:
        # `list` shows usable packs; `verify NAME` reports what is wrong with others.
        return None


def _status(reference: PackReference, store: PackStore) -> PackStatus:
    directory = locate(reference, store)
    present = directory.is_dir()
    size_bytes, checksum = reference.size_bytes, None
    if present:
        size_bytes = sum(path.stat().st_size for path in directory.iterdir() if path.is_file())
        checksum = _weights_checksum(reference, directory)
    return PackStatus(
        name=reference.name,
        source=reference.source_text,
        kind=reference.kind,
        size_bytes=size_bytes,
        present=present,
        checksum=checksum,
        license=reference.license,
    )


def _weights_checksum(reference: PackReference, directory: Path) -> str | None:
    try:
        records = _expectation(reference, directory).files
    except PackCorrupt:
        return None
    weights = (
        record.sha256 for record in records if record.path == WEIGHTS_NAME or _is_ggml(record.path)
    )
    return next(weights, None)


def _is_ggml(file_name: str) -> bool:
    return file_name.endswith(".bin")


def _repair(reference: PackReference) -> str:
    match reference.sources[0]:
        case BuiltinSource():
            return "Reinstall Paraserve"
        case DirectorySource(path):
            return f"Copy the pack into {path} again"
        case _:
            return f"Run `paraserve models pull {reference.name}`"
