"""Parsing and validation of the rows of a manifest."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import fsspec

from serve_app.batch.records import NO_KNOWN_SPEAKERS, BatchItem, ChannelMode, JsonValue
from serve_app.batch.uris import UnusableUri, parse_uri, plain_uri, resolved
from serve_app.core.languages import GUESSED, language_code
from serve_app.core.records import STAGES, Stage
from serve_app.core.speakers import SpeakerOptions, parse_speaker_numbers

_URI_NAMES = ("uri", "path", "audio")
_REFERENCE_NAMES = ("reference", "text")
_SPEAKERS, _CHANNELS = "num_speakers", "channels"
_KNOWN_SPEAKERS = ("known_speaker_names", "known_speaker_references")
_KNOWN = frozenset(
    {"id", "language", "stages", _SPEAKERS, "metadata", *_URI_NAMES, *_REFERENCE_NAMES}
)
_MAX_ID_CHARACTERS = 1000
_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Row:
    """Raw fields of a line by name."""

    line: int
    fields: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Why a line is invalid."""

    line: int
    problem: str


class _Unusable(Exception):
    """A problem of a row; the message completes "line N ..."."""


def jsonl_rows(lines: Iterable[bytes]) -> Iterator[Row | RowProblem]:
    """Yields the JSON object of each non-empty line."""
    for number, text in _text_lines(lines):
        if isinstance(text, RowProblem):
            yield text
        elif text.strip():
            try:
                fields = json.loads(text, parse_constant=_refuse_constant)
            except (ValueError, RecursionError) as error:
                yield RowProblem(number, f"is not JSON: {error}")
                continue
            if isinstance(fields, dict):
                yield Row(number, fields)
            else:
                yield RowProblem(number, "is not a JSON object")


def csv_rows(lines: Iterable[bytes], delimiter: str) -> Iterator[Row | RowProblem]:
    """Yields the fields of each non-empty row, named by the header row."""
    unreadable: list[RowProblem] = []

    def texts() -> Iterator[str]:
        for _, text in _text_lines(lines):
            if isinstance(text, RowProblem):
                unreadable.append(text)
                return
            yield text

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [_column(name) for name in cells]
                problem = _header_problem(header)
                if problem:
                    yield RowProblem(reader.line_num, problem)
                    return
            elif len(cells) != len(header):
                yield RowProblem(
                    reader.line_num, f"has {len(cells)} fields, the header {len(header)}"
                )
            else:
                yield Row(reader.line_num, _cells(header, cells))
    except csv.Error as error:
        if not unreadable:
            yield RowProblem(reader.line_num, f"is not CSV: {error}")
    yield from unreadable


def item_of(row: Row, root: str) -> BatchItem | RowProblem:
    """Returns the recording of a row.

    Args:
        row: of either format.
        root: directory of the manifest, to which relative URIs refer.
    """
    try:
        return _item(row.fields, root)
    except _Unusable as error:
        return RowProblem(row.line, str(error))


def _item(fields: Mapping[str, JsonValue], root: str) -> BatchItem:
    written = _one_of(fields, _URI_NAMES)
    if written is None:
        raise _Unusable("has no uri")
    uri = resolved(written, root)
    try:
        _check_protocol(parse_uri(uri).protocol)
    except UnusableUri as error:
        raise _Unusable(f"has a uri that cannot be read: {error}") from None
    given = fields.get("id")
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    recording_id = _text("id", given) or _default_id(uri, root)
    if len(recording_id) > _MAX_ID_CHARACTERS:
        raise _Unusable(f"has an id of more than {_MAX_ID_CHARACTERS} characters")
    if any(unicodedata.category(character) == "Cc" for character in recording_id):
        raise _Unusable(f"has control characters in its id {recording_id!r}")
    for name in _KNOWN_SPEAKERS:
        if fields.get(name) or fields.get(f"{name}[]"):
            raise _Unusable(f"has {name}, but {NO_KNOWN_SPEAKERS}")
    return BatchItem(
        id=recording_id,
        uri=uri,
        language=_language(fields.get("language")),
        stages=_stages(fields.get("stages")),
        reference=_one_of(fields, _REFERENCE_NAMES),
        metadata=_metadata(fields),
        speakers=_speakers(fields.get(_SPEAKERS)),
        channels=_channels(fields.get(_CHANNELS)),
    )


def _one_of(fields: Mapping[str, JsonValue], names: tuple[str, ...]) -> str | None:
    found = {name: text for name in names if (text := _text(name, fields.get(name)))}
    if len(found) > 1:
        raise _Unusable(f"has {' and '.join(found)}; use only one of them")
    return next(iter(found.values()), None)


def _text(name: str, value: JsonValue) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _Unusable(f"has a {name} that is not text")
    _check_unicode(name, value)
    return value.strip()


def _check_unicode(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Unusable(f"has a {name} with an unpaired surrogate") from None


def _language(value: JsonValue) -> str | None:
    written = _text("language", value)
    code = language_code(written)
    if code == GUESSED:
        return None
    # An unknown language is kept as written; the job rejects it by name.
    return code or written or None


def _stages(value: JsonValue) -> tuple[Stage, ...] | None:
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        value = ",".join(str(name) for name in value)
    names = {name.strip() for name in _text("stages", value).split(",")} - {""}
    if not names:
        return None
    unknown = sorted(names - set(STAGES))
    if unknown:
        raise _Unusable(f"has an unknown stage {unknown[0]!r}; known: {', '.join(STAGES)}")
    if "asr" not in names:
        raise _Unusable("has stages without asr")
    return tuple(stage for stage in STAGES if stage in names)


def _speakers(value: JsonValue) -> SpeakerOptions | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    numbers = _text(_SPEAKERS, value)
    if not numbers:
        return None
    try:
        return parse_speaker_numbers(numbers)
    except ValueError as error:
        raise _Unusable(f"has a {_SPEAKERS} that {error}") from None


def _channels(value: JsonValue) -> ChannelMode | None:
    """Returns how to recognize several channels; a number is metadata, as of other tools."""
    if isinstance(value, int | float):
        return None
    match _text(_CHANNELS, value).lower():
        case "mix" | "separate" as channels:
            return channels
        case "":
            return None
        case number if number.isdecimal():
            return None
        case unknown:
            raise _Unusable(f"has {_CHANNELS} {unknown!r}; known: mix, separate")


def _metadata(fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    metadata = fields.get("metadata")
    if isinstance(metadata, str):  # a CSV column of that name
        metadata = {"metadata": metadata} if metadata else None
    if metadata is not None and not isinstance(metadata, dict):
        raise _Unusable("has a metadata that is not an object")
    found = {name: value for name, value in fields.items() if name not in _KNOWN}
    if _channels(fields.get(_CHANNELS)) is not None:
        del found[_CHANNELS]
    found |= metadata or {}
    if found:
        _check_unicode("metadata", json.dumps(found, ensure_ascii=False))
    return found


def _default_id(uri: str, root: str) -> str:
    prefix = f"{root.rstrip('/')}/"
    if uri.startswith(prefix):
        return uri.removeprefix(prefix)
    return plain_uri(uri).split("://", 1)[-1].lstrip("/")


@cache
def _missing_package(protocol: str) -> str | None:
    try:
        fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        return str(error)
    return None


def _check_protocol(protocol: str) -> None:
    problem = _missing_package(protocol)
    if problem:
        raise _Unusable(f"{protocol}:// cannot be read: {problem}")


def _text_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, str | RowProblem]]:
    for number, line in enumerate(lines, start=1):
        if number == 1:
            if line.startswith(_UTF16_BOMS):
                yield 1, RowProblem(1, "is UTF-16; save the manifest as UTF-8")
                return
            line = line.removeprefix(_BOM)
        try:
            yield number, line.decode()
        except UnicodeDecodeError:
            yield (
                number,
                RowProblem(
                    number,
                    "is not UTF-8 (possibly GBK, the default of Excel); save the manifest "
                    'as "CSV UTF-8" or convert it: iconv -f GB18030 -t UTF-8',
                ),
            )
            return


def _cells(header: list[str], cells: list[str]) -> dict[str, JsonValue]:
    return {name: cell.strip() for name, cell in zip(header, cells, strict=True) if name}


def _column(name: str) -> str:
    stripped = name.strip()
    return stripped.lower() if stripped.lower() in _KNOWN else stripped


def _header_problem(header: list[str]) -> str | None:
    named = [name for name in header if name]
    repeated = sorted({name for name in named if named.count(name) > 1})
    if repeated:
        return f"names the column {repeated[0]!r} twice"
    if not set(named) & set(_URI_NAMES):
        return f"must name the columns, with one of {', '.join(_URI_NAMES)} among them"
    return None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not valid JSON")
