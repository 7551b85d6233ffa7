"""Recordings that are uploaded in parts, and go on where a broken connection left them.

Source: tus 1.0.0, https://tus.io/protocols/resumable-upload
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import BinaryIO, TypeAlias
from urllib.parse import quote, urlsplit

import httpx

from serve_app.client.errors import ClientError, ServiceRefusal, not_the_api
from serve_app.client.sending import Call, Flow, Pause, pause_after

PATH = "/v1/uploads"
PART_BYTES = 8 * 2**20
MAX_PARTS = 9000
"""The service takes 10,000; those that a broken connection cut short count as well."""

_TUS = {"Tus-Resumable": "1.0.0"}

OnSent: TypeAlias = Callable[[int, int], None]
"""Called with the bytes that the service has stored, and the size of the recording."""


def upload_flow(
    content: BinaryIO,
    name: str,
    url: str,
    *,
    upload_id: str | None = None,
    on_sent: OnSent | None = None,
    max_failures: int,
) -> Flow[str]:
    """Uploads a recording; returns the id of the upload.

    Args:
        content: the recording, which can seek; it is sent from its start.
        name: of the file.
        url: of the service, for messages.
        upload_id: an upload to go on with; None to begin one.
        on_sent: called after each part.
        max_failures: in a row, without a byte of progress.

    Raises:
        ClientError: the service refuses it, or stays out of reach.
        OSError: the recording cannot be read, or has become shorter.
    """
    size_bytes = size_of(content)
    offset_bytes: int | None = None
    if upload_id is None:
        upload_id = yield from _created(name, size_bytes, url)
        offset_bytes = 0
    num_failures, reached_bytes = 0, 0
    while offset_bytes is None or offset_bytes < size_bytes:
        try:
            if offset_bytes is None:
                call = Call("HEAD", upload_path(upload_id), headers=_TUS, repeated=False)
            else:
                call = _patch(upload_id, offset_bytes, _part(content, offset_bytes, size_bytes))
            offset_bytes = _offset((yield call), url)
        except ClientError as error:
            num_failures += 1
            if num_failures > max_failures or not _may_go_on(error):
                raise _clearer(error, upload_id) from None
            yield Pause(pause_after(error, num_failures))
            # A part of what was sent may have been stored, or all of it: it is asked for.
            offset_bytes = None
            continue
        if offset_bytes > size_bytes:
            raise OSError(f"the upload {upload_id} is of another recording")
        if offset_bytes > reached_bytes:
            num_failures, reached_bytes = 0, offset_bytes
        if on_sent is not None:
            on_sent(offset_bytes, size_bytes)
    return upload_id


def upload_path(upload_id: str) -> str:
    """Returns the path of an upload."""
    return f"{PATH}/{quote(upload_id, safe='')}"


def size_of(content: BinaryIO) -> int:
    """Returns the size in bytes of a file that can seek."""
    return content.seek(0, io.SEEK_END)


def _created(name: str, size_bytes: int, url: str) -> Flow[str]:
    encoded = base64.b64encode(name.encode("utf-8", "surrogateescape")).decode()
    headers = {
        **_TUS,
        "Upload-Length": str(size_bytes),
        "Upload-Metadata": f"filename {encoded}",
    }
    response = yield Call("POST", PATH, headers=headers)
    location = response.headers.get("Location", "") if response is not None else ""
    # Only the id is used: behind a proxy the service may not know its own address.
    upload_id = urlsplit(location).path.rstrip("/").rpartition("/")[2]
    if not upload_id:
        raise not_the_api(url)
    return upload_id


def _patch(upload_id: str, offset_bytes: int, part: bytes) -> Call:
    headers = {
        **_TUS,
        "Upload-Offset": str(offset_bytes),
        "Content-Type": "application/offset+octet-stream",
    }
    path = upload_path(upload_id)
    return Call("PATCH", path, headers=headers, body={"content": part}, repeated=False)


def _part(content: BinaryIO, offset_bytes: int, size_bytes: int) -> bytes:
    part_bytes = max(PART_BYTES, -(-size_bytes // MAX_PARTS))
    content.seek(offset_bytes)
    part = content.read(min(part_bytes, size_bytes - offset_bytes))
    if not part:
        raise OSError("the recording became shorter while it was sent")
    return part


def _offset(response: httpx.Response | None, url: str) -> int:
    header = response.headers.get("Upload-Offset", "") if response is not None else ""
    if not header.isdecimal():
        raise not_the_api(url)
    return int(header)


def _may_go_on(error: ClientError) -> bool:
    """Whether the upload may go on, once it is known where it stands."""
    return error.code == "upload_conflict" or error.may_succeed_later


def _clearer(error: ClientError, upload_id: str) -> ClientError:
    """Returns the error; the answer to HEAD has no body that would say which it is."""
    if error.status in (404, 410):
        message = f"there is no upload {upload_id}; it may have expired"
        return ServiceRefusal(error.status, "upload_not_found", message)
    return error
