"""Uploads that go on where a lost connection left them: tus 1.0.

Source: tus resumable upload protocol 1.0.0, core protocol, and the extensions creation,
creation-with-upload, expiration and termination.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, timedelta
from email.utils import format_datetime

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from serve_app.api.admission import Admission, AdmissionGate
from serve_app.api.auth import caller_of
from serve_app.api.body import RequestBody
from serve_app.api.endpoints import Endpoint, EndpointLog
from serve_app.api.errors import STATUS_OF
from serve_app.api.job_creation import JobBackend, new_id, root_of
from serve_app.api.job_fields import MAX_KEY_CHARS, MAX_PAIRS, MAX_VALUE_CHARS, upload_id_of
from serve_app.api.job_files import PART_BYTES, part_name, put_spool
from serve_app.api.limits import ApiLimits
from serve_app.api.response_models import Upload
from serve_app.api.spool import SpoolDirectory, SpoolFile
from serve_app.audio.opening import check_beginning
from serve_app.core.errors import (
    EmptyUpload,
    InvalidParameter,
    MalformedBody,
    MethodNotAllowed,
    ParaserveError,
    UploadTooLarge,
    UploadTooSlow,
)
from serve_app.core.job_errors import (
    PartTypeNotSupported,
    TusVersionNotSupported,
    UploadConflict,
)
from serve_app.jobs.records import ResumableUpload

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,expiration,termination"
PART_TYPE = "application/offset+octet-stream"
MIN_SAVED_BYTES = 64 * 1024
"""Least of a part that is kept when its connection breaks; less is cheaper to send again."""

_MAX_OPEN_UPLOADS = 32
_MAX_PARTS = 10_000
_LIFETIME = timedelta(days=1)
_MAX_DIGITS = 18
_CREATED, _NO_CONTENT = 201, 204
_METADATA_HEADER = "Upload-Metadata"
_METADATA_KEY = re.compile(rf"[!-+\--~]{{1,{MAX_KEY_CHARS}}}", re.ASCII)
_OVERRIDE_HEADER = "X-HTTP-Method-Override"


class ResumableUploads:
    """Answers the requests of tus clients.

    The bytes of a request are stored in parts of at most `PART_BYTES`, each before the offset
    moves past it, also those that came before a connection broke.

    Args:
        limits: of a request and of a recording.
        gate: reserves the bytes of the part that arrives.
        backend: of the jobs.
        logger: told of parts that could not be stored.
    """

    def __init__(
        self,
        limits: ApiLimits,
        gate: AdmissionGate,
        backend: JobBackend,
        logger: logging.Logger,
    ) -> None:
        self._limits = limits
        self._gate = gate
        self._backend = backend
        self._store = backend.store
        self._logger = logger
        self._directory = SpoolDirectory(limits.spool_dir)
        self._saving: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Returns when the parts of broken connections are stored."""
        if self._saving:
            await asyncio.wait(self._saving)

    async def options(self, request: Request, log: EndpointLog) -> Response:
        return Response(
            status_code=_NO_CONTENT,
            headers={
                "Tus-Resumable": VERSION,
                "Tus-Version": VERSION,
                "Tus-Extension": EXTENSIONS,
                "Tus-Max-Size": str(self._backend.max_upload_bytes),
            },
        )

    async def create(self, request: Request, log: EndpointLog) -> Response:
        """Adds an upload; the body, if there is one, is its beginning."""
        body = RequestBody(request, self._limits.upload_rate)
        try:
            _check_version(request)
            length_bytes = self._length_of(request)
            has_part = _declares_body(request)
            if has_part:
                _check_type(request)
            upload = ResumableUpload(
                new_id("upl"),
                caller_of(request).name,
                length_bytes,
                0,
                (),
                _metadata_of(request),
                self._backend.clock() + _LIFETIME,
            )
            await self._store.create_upload(upload, _MAX_OPEN_UPLOADS)
            log.subject = upload.id
            if has_part:
                upload = await self._receive(request, body, upload, log)
        except ParaserveError as error:
            await body.discard_after(error)
            raise
        finally:
            body.close()
        response = Response(status_code=_CREATED, headers=_headers(upload))
        response.headers["Location"] = f"{root_of(request)}/v1/uploads/{upload.id}"
        return response

    async def get(self, request: Request, log: EndpointLog) -> Response:
        """Answers HEAD, as tus has it, and GET with the same and a body."""
        _check_version(request)
        upload = await self._upload(request, log)
        answer: Upload = {
            "id": upload.id,
            "object": "upload",
            "length_bytes": upload.length_bytes,
            "offset_bytes": upload.offset_bytes,
            "expires_at": int(upload.expires_at.timestamp()),
            "metadata": dict(upload.metadata),
        }
        headers = {**_headers(upload), "Upload-Length": str(upload.length_bytes)}
        if upload.metadata:
            headers[_METADATA_HEADER] = _written(upload.metadata)
        return JSONResponse(answer, headers={**headers, "Cache-Control": "no-store"})

    async def patch(self, request: Request, log: EndpointLog) -> Response:
        """Adds the body at the offset that the request names."""
        body = RequestBody(request, self._limits.upload_rate)
        try:
            _check_version(request)
            _check_type(request)
            offset_bytes = _number_in(request, "Upload-Offset")
            upload = await self._upload(request, log)
            if offset_bytes != upload.offset_bytes:
                raise UploadConflict(upload.offset_bytes)
            upload = await self._receive(request, body, upload, log)
        except ParaserveError as error:
            await body.discard_after(error)
            raise
        finally:
            body.close()
        return Response(status_code=_NO_CONTENT, headers=_headers(upload))

    async def delete(self, request: Request, log: EndpointLog) -> Response:
        """Removes an upload that no job has taken. Files without a row go later, if need be."""
        _check_version(request)
        upload_id = log.subject = upload_id_of(request)
        await self._store.delete_upload(caller_of(request).name, upload_id)
        await self._backend.files.delete_all(upload_id)
        return Response(status_code=_NO_CONTENT, headers={"Tus-Resumable": VERSION})

    async def post(self, request: Request, log: EndpointLog) -> Response:
        """Does what the header X-HTTP-Method-Override says, for clients that cannot PATCH."""
        method = request.headers.get(_OVERRIDE_HEADER, "").strip().upper()
        if method == "PATCH":
            return await self.patch(request, log)
        if method == "DELETE":
            return await self.delete(request, log)
        raise MethodNotAllowed(f"POST is not allowed on {request.url.path}")

    async def _upload(self, request: Request, log: EndpointLog) -> ResumableUpload:
        log.subject = upload_id_of(request)
        return await self._store.get_upload(caller_of(request).name, log.subject)

    def _length_of(self, request: Request) -> int:
        if "Upload-Defer-Length" in request.headers or "Upload-Concat" in request.headers:
            raise InvalidParameter(
                "Upload-Length", "is required: lengths cannot be deferred, nor uploads joined"
            )
        length_bytes = _number_in(request, "Upload-Length")
        if not length_bytes:
            raise EmptyUpload
        if length_bytes > self._backend.max_upload_bytes:
            raise UploadTooLarge(self._backend.max_upload_bytes, "jobs.max_upload_bytes")
        return length_bytes

    async def _receive(
        self, request: Request, body: RequestBody, upload: ResumableUpload, log: EndpointLog
    ) -> ResumableUpload:
        """Stores the body in parts; returns the upload as it is then.

        Raises:
            MalformedBody: it goes beyond the upload's length.
            UploadConflict: another request has stored a part meanwhile.
        """
        left_bytes = upload.length_bytes - upload.offset_bytes
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:_MAX_DIGITS]) > left_bytes:
            raise MalformedBody(
                f"only {left_bytes} bytes of the upload are missing, and it has more"
            )
        if len(upload.parts) >= _MAX_PARTS:
            raise MalformedBody(f"an upload has at most {_MAX_PARTS} parts; send larger ones")
        # One part of it is on the disk at a time.
        admission = self._gate.store(caller_of(request), min(left_bytes, PART_BYTES))
        reception = _Reception(self, upload, admission, log)
        try:
            await reception.take(body.stream())
            return await reception.finish()
        except (ClientDisconnect, UploadTooSlow, asyncio.CancelledError):
            self._save_later(reception)
            raise
        except BaseException:
            reception.close()
            raise

    def open_spool(self, upload: ResumableUpload) -> SpoolFile:
        """Returns a file for the next part of an upload."""
        spool = self._directory.open(PART_BYTES)
        if not upload.offset_bytes:
            spool.check_beginning = check_beginning
        return spool

    async def add_part(self, upload: ResumableUpload, spool: SpoolFile) -> ResumableUpload:
        """Stores a part, and moves the offset past it."""
        offset, num_bytes = upload.offset_bytes, spool.size_bytes
        name = part_name(upload.id, offset, num_bytes)
        await put_spool(self._backend.files, name, spool)
        return await self._store.add_part(upload.key, upload.id, offset, num_bytes)

    def _save_later(self, reception: _Reception) -> None:
        task = asyncio.create_task(self._save(reception))
        self._saving.add(task)
        task.add_done_callback(self._saving.discard)

    async def _save(self, reception: _Reception) -> None:
        try:
            if reception.spooled_bytes >= MIN_SAVED_BYTES:
                await reception.finish()
        except ParaserveError as error:
            self._logger.warning(
                "the part of a broken upload is not kept",
                extra={"subject": reception.upload.id, "error": str(error)},
            )
        finally:
            reception.close()


class _Reception:
    """A body on its way into parts of an upload. Close it, or `finish` it, at the end.

    Args:
        uploads: stores the parts.
        upload: as it was before.
        admission: of the bytes of one part.
        log: counts the stored bytes.
    """

    def __init__(
        self,
        uploads: ResumableUploads,
        upload: ResumableUpload,
        admission: Admission,
        log: EndpointLog,
    ) -> None:
        self.upload = upload
        self._uploads = uploads
        self._admission = admission
        self._log = log
        self._spool: SpoolFile | None = None

    @property
    def spooled_bytes(self) -> int:
        """Bytes that have arrived and are not stored."""
        return 0 if self._spool is None else self._spool.size_bytes

    async def take(self, pieces: AsyncIterator[bytes]) -> None:
        """Takes a body, and stores each part that is full.

        Raises:
            MalformedBody: it goes beyond the upload's length.
        """
        async for piece in pieces:
            rest = memoryview(piece)
            while rest:
                num_left = self.upload.length_bytes - self.upload.offset_bytes - self.spooled_bytes
                if not num_left:
                    raise MalformedBody("it goes beyond the length of the upload")
                room = min(num_left, PART_BYTES - self.spooled_bytes)
                if self._spool is None:
                    self._spool = self._uploads.open_spool(self.upload)
                self._spool.write(rest[:room])
                rest = rest[room:]
                if self.spooled_bytes == PART_BYTES:
                    await self._store()

    async def finish(self) -> ResumableUpload:
        """Stores what is left; returns the upload as it is then."""
        try:
            if self.spooled_bytes:
                await self._store()
        finally:
            self.close()
        return self.upload

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None
        self._admission.leave()

    async def _store(self) -> None:
        spool = self._spool
        if spool is None:
            return
        self.upload = await self._uploads.add_part(self.upload, spool)
        self._log.num_bytes += spool.size_bytes
        spool.close()
        self._spool = None


def with_version(endpoint: Endpoint) -> Endpoint:
    """Returns an endpoint whose every response names the version of tus, as it demands."""

    async def versioned(request: Request) -> Response:
        response = await endpoint(request)
        response.headers["Tus-Resumable"] = VERSION
        if response.status_code == STATUS_OF[TusVersionNotSupported]:
            response.headers["Tus-Version"] = VERSION
        return response

    return versioned


def _check_version(request: Request) -> None:
    if request.headers.get("tus-resumable", VERSION) != VERSION:
        raise TusVersionNotSupported(VERSION)


def _check_type(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != PART_TYPE:
        raise PartTypeNotSupported(PART_TYPE)


def _declares_body(request: Request) -> bool:
    length = request.headers.get("content-length", "0").strip()
    return length.strip("0") != "" or "transfer-encoding" in request.headers


def _number_in(request: Request, name: str) -> int:
    values = request.headers.getlist(name)
    digits = values[0].strip() if len(values) == 1 else ""
    if not digits.isascii() or not digits.isdecimal() or len(digits) > _MAX_DIGITS:
        raise InvalidParameter(name, "must be given once, as a whole number of bytes")
    return int(digits)


def _metadata_of(request: Request) -> dict[str, str]:
    """Returns the pairs of the header Upload-Metadata, whose values are in base64."""
    found: dict[str, str] = {}
    pairs = [pair.strip() for pair in request.headers.get(_METADATA_HEADER, "").split(",")]
    for pair in filter(None, pairs):
        key, _, encoded = pair.partition(" ")
        try:
            value = base64.b64decode(encoded.strip(), validate=True).decode()
        except (binascii.Error, ValueError):
            raise InvalidParameter(_METADATA_HEADER, "must have values in base64") from None
        if not _METADATA_KEY.fullmatch(key) or key in found:
            raise InvalidParameter(
                _METADATA_HEADER, f"must have keys of 1 to {MAX_KEY_CHARS} letters, each once"
            )
        if len(value) > MAX_VALUE_CHARS or "\x00" in value:
            raise InvalidParameter(
                _METADATA_HEADER, f"must have values of at most {MAX_VALUE_CHARS} characters"
            )
        found[key] = value
    if len(found) > MAX_PAIRS:
        raise InvalidParameter(_METADATA_HEADER, f"must have at most {MAX_PAIRS} pairs")
    return found


def _written(metadata: Mapping[str, str]) -> str:
    return ",".join(
        f"{key} {base64.b64encode(value.encode()).decode()}".strip()
        for key, value in metadata.items()
    )


def _headers(upload: ResumableUpload) -> dict[str, str]:
    return {
        "Tus-Resumable": VERSION,
        "Upload-Offset": str(upload.offset_bytes),
        "Upload-Expires": format_datetime(upload.expires_at.astimezone(UTC), usegmt=True),
    }
