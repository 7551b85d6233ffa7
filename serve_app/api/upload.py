"""Receives the body of a request: spools the recording to disk and returns the form fields.

The size stays within what admission allows.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serve_app.api.admission import Admission
from serve_app.api.body import RequestBody
from serve_app.api.fetching import Fetcher
from serve_app.api.fields import TEXT_FIELDS
from serve_app.api.limits import ApiLimits
from serve_app.api.spool import SpoolDirectory, SpoolFile
from serve_app.audio.channel_counts import declared_channels
from serve_app.audio.durations import estimate_duration
from serve_app.audio.opening import check_beginning
from serve_app.core.errors import EmptyUpload, InvalidParameter, MalformedBody, UploadTooLarge

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


MAX_JSON_BYTES = 64 * 1024
_MAX_FIELD_BYTES = 64 * 1024
# In base64; 10 s of speech in 16 kHz WAV take 0.4 MiB.
_MAX_REFERENCE_BYTES = 2 * 2**20
_REFERENCES = "known_speaker_references"
# A list of hotwords may have one field per word.
_MAX_FIELDS = 256
# Of all headers of one part together.
_MAX_HEADER_BYTES = 16 * 1024
_JSON_CHARSETS = frozenset({b"utf-8", b"utf8", b"us-ascii"})
FILE_FIELD = "file"
_SINGLE = TEXT_FIELDS | {"audio_url"}

# It warns about every malformed body; the request's log line already reports it.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

MAX_FIELDS_BYTES = 5 * 2**20
"""What a body may have besides the file: with room for four voices in 44.1 kHz WAV."""


@dataclass(frozen=True, slots=True)
class Form:
    """The content of a request body.

    Attributes:
        fields: values by name, in the order in which they came.
        has_file: whether the recording was sent; it is in the spool file then.
    """

    fields: dict[str, list[str]]
    has_file: bool


async def receive_form(
    body: AsyncIterator[bytes], content_type: str | None, spool: SpoolFile
) -> Form:
    """Reads a body to its end: multipart/form-data, or JSON with a field `audio_url`.

    Bytes are counted as they arrive, so a chunked body is bounded as well as one
    that declares its length.

    Args:
        body: the request's body.
        content_type: its Content-Type header.
        spool: takes the field `file`, and bounds its size.

    Raises:
        UploadTooLarge: the file is over the limit.
        MalformedBody: the body is not what its type says, or is cut off.
        InvalidParameter: a field is too long, or `file` is given more than once.
        EmptyUpload: the file has no bytes.
    """
    kind, options = parse_options_header(content_type)
    if kind == b"application/json":
        if options.get(b"charset", b"utf-8").lower() not in _JSON_CHARSETS:
            raise MalformedBody("JSON must be UTF-8")
        return Form(_fields_of(await _read_small(body)), has_file=False)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise MalformedBody(
            "Content-Type must be multipart/form-data with a boundary; "
            "send the recording as the form field 'file'"
        )
    return await _receive_multipart(body, boundary, spool)


async def _receive_multipart(body: AsyncIterator[bytes], boundary: bytes, spool: SpoolFile) -> Form:
    form = _Form(spool)
    num_bytes = 0
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for data in body:
            # Bytes before, between and after the parts count as well.
            num_bytes += len(data)
            if num_bytes > spool.max_bytes + MAX_FIELDS_BYTES:
                raise spool.too_large()
            parser.write(data)
        parser.finalize()
    except FormParserError as error:
        raise MalformedBody(str(error)) from None
    if not form.ended:
        raise MalformedBody("it ends in the middle of a part")
    if form.has_file and not spool.size_bytes:
        raise EmptyUpload
    return Form(form.fields, form.has_file)


async def _read_small(body: AsyncIterator[bytes]) -> bytes:
    content = bytearray()
    async for data in body:
        content += data
        if len(content) > MAX_JSON_BYTES:
            raise MalformedBody(f"a JSON body may have at most {MAX_JSON_BYTES} bytes")
    return bytes(content)


def _fields_of(content: bytes) -> dict[str, list[str]]:
    """Returns the fields of a JSON object in the format of form fields."""
    parsed = parse_json(content)
    if not isinstance(parsed, dict):
        raise MalformedBody("it is not a JSON object")
    if sum(len(one) if isinstance(one, list) else 1 for one in parsed.values()) > _MAX_FIELDS:
        raise MalformedBody(f"it has more than {_MAX_FIELDS} fields")
    return {name: [_as_field(name, value)] for name, value in parsed.items() if value is not None}


def parse_json(content: bytes) -> object:
    """Parses a JSON document strictly, so that every parser would read the same.

    Raises:
        MalformedBody: it is not JSON in UTF-8, names a key twice, is nested too deeply, or
            has numbers or characters that there are none of (NaN, 1e999, lone surrogates).
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise MalformedBody("JSON must be UTF-8") from None
    try:
        parsed: object = json.loads(
            text,
            object_pairs_hook=_object_of,
            parse_constant=_no_number,
            parse_float=_finite_float,
        )
        # Escapes can name half of a character.
        json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedBody("it contains a lone surrogate, which is not a character") from None
    except (ValueError, RecursionError):
        raise MalformedBody("it is not JSON") from None
    return parsed


def _object_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise MalformedBody("an object has the same key twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise MalformedBody(f"{name} is not valid in JSON")


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise MalformedBody("a number is out of range")
    return value


def _as_field(name: str, value: object) -> str:
    """Returns a value as a form field: lists and objects become JSON text."""
    if name in _SINGLE and isinstance(value, list | dict):
        raise InvalidParameter(name, "must be a string, a number or a boolean")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(slots=True)
class _Form:
    """Collects fields and file from the parser's callbacks."""

    spool: SpoolFile
    fields: dict[str, list[str]] = field(default_factory=dict)
    has_file: bool = False
    ended: bool = False
    _header_name: bytearray = field(default_factory=bytearray)
    _header_value: bytearray = field(default_factory=bytearray)
    _disposition: bytes = b""
    _num_header_bytes: int = 0
    _part_name: str = ""
    _value: bytearray = field(default_factory=bytearray)
    _num_fields: int = 0
    _num_field_bytes: int = 0

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._extend_header_name,
            "on_header_value": self._extend_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._take_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self._disposition = b""
        self._num_header_bytes = 0
        self._part_name = ""
        self._value.clear()

    def _extend_header_name(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._header_name += data[start:end]

    def _extend_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._header_value += data[start:end]

    def _count_header(self, num_bytes: int) -> None:
        self._num_header_bytes += num_bytes
        if self._num_header_bytes > _MAX_HEADER_BYTES:
            raise MalformedBody("a part's headers are too long")

    def _end_header(self) -> None:
        if bytes(self._header_name).lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name")
        if not name:
            raise MalformedBody("a part has no name")
        self._part_name = name.decode("utf-8", "replace")
        if self._part_name == FILE_FIELD:
            if self.has_file:
                raise InvalidParameter(FILE_FIELD, "must be given once")
            self.has_file = True
            return
        self._num_fields += 1
        if self._num_fields > _MAX_FIELDS:
            raise MalformedBody(f"it has more than {_MAX_FIELDS} fields")

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._part_name == FILE_FIELD:
            self.spool.write(memoryview(data)[start:end])
            return
        self._value += data[start:end]
        self._num_field_bytes += end - start
        if self._num_field_bytes > MAX_FIELDS_BYTES:
            raise MalformedBody(f"its fields have more than {MAX_FIELDS_BYTES} bytes")
        is_reference = self._part_name.partition("[")[0] == _REFERENCES
        most_bytes = _MAX_REFERENCE_BYTES if is_reference else _MAX_FIELD_BYTES
        if len(self._value) > most_bytes:
            raise InvalidParameter(self._part_name, f"is longer than {most_bytes} bytes")

    def _end_part(self) -> None:
        if self._part_name != FILE_FIELD:
            try:
                value = self._value.decode("utf-8")
            except UnicodeDecodeError:
                raise InvalidParameter(self._part_name, "is not UTF-8") from None
            self.fields.setdefault(self._part_name, []).append(value)

    def _end(self) -> None:
        self.ended = True


_URL_FIELD = "audio_url"
# Reserved at first for a body without a declared length; grows while it is received.
_RESERVED_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording on disk and the form fields that came with it.

    Attributes:
        spool: its bytes.
        fields: the other fields of the form.
        audio_s: its length if known without decoding, else 0; never more
            than may be admitted, since only a decoder tells for certain that it is too long.
        num_channels: that its header declares; None where only a decoder can tell.
    """

    spool: SpoolFile
    fields: dict[str, list[str]]
    audio_s: float
    num_channels: int | None = None


class UploadReader:
    """Receives recordings.

    Args:
        limits: of one recording.
        fetcher: of recordings that are given as a URL; None to reject URLs.
    """

    def __init__(self, limits: ApiLimits, fetcher: Fetcher | None) -> None:
        self._limits = limits
        self._fetcher = fetcher
        self._directory = SpoolDirectory(limits.spool_dir)

    def reserved_bytes(self, request: Request) -> int:
        """Returns what to reserve for a request before its body is read.

        Raises:
            UploadTooLarge: the body declares more than the limit.
        """
        length = _declared_bytes(request)
        if length is None:
            return min(_RESERVED_BYTES, self._limits.max_upload_bytes)
        if length > self._limits.max_upload_bytes + MAX_FIELDS_BYTES:
            raise UploadTooLarge(self._limits.max_upload_bytes)
        if request.headers.get("content-type", "").lower().startswith("application/json"):
            # No more of it is read, whatever length it declares.
            length = min(length, MAX_JSON_BYTES)
        return min(length, self._limits.max_upload_bytes)

    async def receive(
        self,
        request: Request,
        body: RequestBody,
        admission: Admission,
        elsewhere: str | None = None,
    ) -> Recording:
        """Reads the body, and fetches the recording if it names a URL.

        Args:
            request: whose body it is.
            body: of the request; it is read to its end.
            admission: reserves the bytes.
            elsewhere: name of a field that may stand for a recording which is here already;
                there are no bytes then, and the field stays among the others.

        Raises:
            RequestError: the body or the recording is not acceptable.
            Overloaded: there is no room for its bytes.
            StorageFull: the disk is full.
        """
        spool = self._directory.open(
            self._limits.max_upload_bytes, lambda num_bytes: _reserve(admission, num_bytes)
        )
        spool.check_beginning = check_beginning
        try:
            form = await receive_form(body.stream(), request.headers.get("content-type"), spool)
            fields = await body.unless_departed(self._complete(form, spool, elsewhere))
            admission.resize(spool.size_bytes)
            if elsewhere in fields:
                return Recording(spool, fields, 0.0)
            # A hostile index takes a while to walk.
            estimate = await asyncio.to_thread(estimate_duration, spool.content())
            num_channels = await asyncio.to_thread(declared_channels, spool.content())
            audio_s = min(estimate.duration_s, self._limits.max_audio_s, admission.max_audio_s)
        except BaseException:
            spool.close()
            raise
        return Recording(spool, fields, audio_s, num_channels)

    async def _complete(
        self, form: Form, spool: SpoolFile, elsewhere: str | None
    ) -> dict[str, list[str]]:
        """Returns the fields without those that name the recording."""
        fields = dict(form.fields)
        urls = fields.pop(_URL_FIELD, [])
        if elsewhere in fields:
            if form.has_file or urls:
                raise InvalidParameter(elsewhere, "must be given without file and audio_url")
            return fields
        if not urls:
            if not form.has_file:
                raise InvalidParameter(FILE_FIELD, "is required, as a multipart file")
            return fields
        if self._fetcher is None:
            raise InvalidParameter(
                _URL_FIELD, "is not enabled on this service; upload the recording as file"
            )
        if form.has_file or len(urls) > 1:
            raise InvalidParameter(_URL_FIELD, "must be given once, and without a file")
        spool.max_bytes = self._fetcher.max_bytes
        spool.limit_setting = "audio_url.max_bytes"
        await self._fetcher.fetch(urls[0], spool)
        return fields


def with_query(fields: Mapping[str, Sequence[str]], request: Request) -> dict[str, list[str]]:
    """Returns the fields of the body and of the query; those of the body take precedence."""
    in_query: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        in_query.setdefault(name, []).append(value)
    return in_query | {name: list(values) for name, values in fields.items()}


def _reserve(admission: Admission, num_bytes: int) -> None:
    if num_bytes > admission.num_bytes:
        admission.resize(num_bytes)


def _declared_bytes(request: Request) -> int | None:
    length = request.headers.get("content-length", "")
    # Python refuses to turn thousands of digits into a number.
    return int(length[:20]) if length.isdecimal() else None
