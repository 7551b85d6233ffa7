"""From a request's body to a recording on disk, within what admission allows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fastapi import Request

from serve_app.api.admission import Admission
from serve_app.api.body import RequestBody
from serve_app.api.fetching import Fetcher
from serve_app.api.limits import ApiLimits
from serve_app.api.spool import SpoolDirectory, SpoolFile
from serve_app.api.upload import FILE_FIELD, MAX_FIELDS_BYTES, MAX_JSON_BYTES, Form, receive_form
from serve_app.audio.beginning import check_beginning
from serve_app.audio.durations import estimate_duration
from serve_app.core.errors import InvalidParameter, UploadTooLarge

_URL_FIELD = "audio_url"
# What a body without a declared length reserves at first; it grows while it streams.
_RESERVED_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording on disk and the form fields that came with it.

    Attributes:
        spool: its bytes.
        fields: the other fields of the form.
        audio_s: its length as far as that can be told without decoding, else 0; never more
            than may be admitted, since only a decoder tells for certain that it is too long.
    """

    spool: SpoolFile
    fields: dict[str, list[str]]
    audio_s: float


class Intake:
    """Takes in recordings.

    Args:
        limits: of one recording.
        fetcher: of recordings that come as a URL; None where they may not.
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
            # No more of it is read, whatever it declares.
            length = min(length, MAX_JSON_BYTES)
        return min(length, self._limits.max_upload_bytes)

    async def receive(self, request: Request, body: RequestBody, admission: Admission) -> Recording:
        """Reads the body, or fetches what it names.

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
            fields = await body.unless_departed(self._complete(form, spool))
            admission.resize(spool.size_bytes)
            # A hostile index takes a while to walk.
            estimate = await asyncio.to_thread(estimate_duration, spool.content())
            audio_s = min(estimate.duration_s, self._limits.max_audio_s, admission.max_audio_s)
        except BaseException:
            spool.close()
            raise
        return Recording(spool, fields, audio_s)

    async def _complete(self, form: Form, spool: SpoolFile) -> dict[str, list[str]]:
        """Returns the fields that remain when the recording is there."""
        fields = dict(form.fields)
        urls = fields.pop(_URL_FIELD, [])
        if not urls:
            if not form.has_file:
                raise InvalidParameter(FILE_FIELD, "is required, as a multipart file")
            return fields
        if self._fetcher is None:
            raise InvalidParameter(_URL_FIELD, "is not enabled here; send the recording as file")
        if form.has_file or len(urls) > 1:
            raise InvalidParameter(_URL_FIELD, "must be given once, and without a file")
        spool.max_bytes = self._fetcher.max_bytes
        await self._fetcher.fetch(urls[0], spool)
        return fields


def _reserve(admission: Admission, num_bytes: int) -> None:
    if num_bytes > admission.num_bytes:
        admission.resize(num_bytes)


def _declared_bytes(request: Request) -> int | None:
    length = request.headers.get("content-length", "")
    # Python refuses to turn thousands of digits into a number.
    return int(length[:20]) if length.isdecimal() else None
