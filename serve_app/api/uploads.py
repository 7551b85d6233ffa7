"""Takes in a multipart upload: the file goes to disk, the fields are returned.

The file is spooled to an unnamed temporary file. It has no directory entry, so
it cannot be left behind: the kernel frees it when its last handle closes, also
when the process is killed.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serve_app.core.chunks import FileBytes
from serve_app.core.errors import EmptyUpload, InvalidParameter, MalformedBody, UploadTooLarge

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MAX_FIELD_BYTES = 64 * 1024
_MAX_FIELDS = 64
_MAX_HEADER_BYTES = 16 * 1024
_FILE_FIELD = "file"


@dataclass(slots=True)
class Upload:
    """A file on disk and the form fields that came with it; close it when done."""

    file: BinaryIO
    size_bytes: int
    fields: dict[str, list[str]]

    def content(self) -> FileBytes:
        """Returns the file's bytes, mapped, not read into memory."""
        mapped = mmap.mmap(self.file.fileno(), self.size_bytes, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, dtype=np.uint8)

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> Upload:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


async def receive_upload(
    body: AsyncIterator[bytes],
    content_type: str | None,
    content_length: int | None,
    *,
    max_bytes: int,
    spool_dir: Path | None,
) -> Upload:
    """Reads a multipart body to its end.

    Bytes are counted as they arrive, so a chunked body is bounded as well as one
    that declares its length.

    Args:
        body: the request's body.
        content_type: its Content-Type header.
        content_length: its Content-Length header, None when it is chunked.
        max_bytes: limit of the file's size.
        spool_dir: directory of the temporary file, None for the system's.

    Raises:
        UploadTooLarge: the file, or the declared body, is over the limit.
        MalformedBody: the body is not multipart/form-data, or is cut off.
        InvalidParameter: there is no field `file`, or more than one.
        EmptyUpload: the file has no bytes.
    """
    max_body_bytes = max_bytes + _MAX_FIELDS * _MAX_FIELD_BYTES
    if content_length is not None and content_length > max_body_bytes:
        raise UploadTooLarge(max_bytes)
    # The file outlives this function inside the returned Upload.
    file = cast(BinaryIO, tempfile.TemporaryFile(dir=spool_dir))  # noqa: SIM115
    try:
        form = _Form(file, max_bytes)
        parser = MultipartParser(_boundary(content_type), form.callbacks())
        async for data in body:
            parser.write(data)
        parser.finalize()
        if not form.ended:
            raise MalformedBody("it ends in the middle of a part")
        if not form.has_file:
            raise InvalidParameter(_FILE_FIELD, "is required, as a multipart file")
        if form.file_bytes == 0:
            raise EmptyUpload
        file.flush()
        return Upload(file, form.file_bytes, form.fields)
    except FormParserError as error:
        file.close()
        raise MalformedBody(str(error)) from None
    except BaseException:
        file.close()
        raise


def _boundary(content_type: str | None) -> bytes:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise MalformedBody(
            "Content-Type must be multipart/form-data with a boundary; "
            "send the recording as the form field 'file'"
        )
    return boundary


@dataclass(slots=True)
class _Form:
    """Collects what the parser calls out."""

    file: BinaryIO
    max_file_bytes: int
    fields: dict[str, list[str]] = field(default_factory=dict)
    file_bytes: int = 0
    has_file: bool = False
    ended: bool = False
    _header_name: bytearray = field(default_factory=bytearray)
    _header_value: bytearray = field(default_factory=bytearray)
    _disposition: bytes = b""
    _part_name: str = ""
    _value: bytearray = field(default_factory=bytearray)
    _num_fields: int = 0

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
        self._part_name = ""
        self._value.clear()

    def _extend_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]
        self._check_header()

    def _extend_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._header_name) + len(self._header_value) > _MAX_HEADER_BYTES:
            raise MalformedBody("a part's header is too long")

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
        if self._part_name == _FILE_FIELD:
            if self.has_file:
                raise InvalidParameter(_FILE_FIELD, "must be given once")
            self.has_file = True
            return
        self._num_fields += 1
        if self._num_fields > _MAX_FIELDS:
            raise MalformedBody(f"it has more than {_MAX_FIELDS} fields")

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._part_name == _FILE_FIELD:
            self.file_bytes += end - start
            if self.file_bytes > self.max_file_bytes:
                raise UploadTooLarge(self.max_file_bytes)
            self.file.write(memoryview(data)[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > _MAX_FIELD_BYTES:
            raise InvalidParameter(self._part_name, f"is longer than {_MAX_FIELD_BYTES} bytes")

    def _end_part(self) -> None:
        if self._part_name != _FILE_FIELD:
            try:
                value = self._value.decode("utf-8")
            except UnicodeDecodeError:
                raise InvalidParameter(self._part_name, "is not UTF-8") from None
            self.fields.setdefault(self._part_name, []).append(value)

    def _end(self) -> None:
        self.ended = True
