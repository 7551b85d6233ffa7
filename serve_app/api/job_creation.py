"""Creates jobs: the recording and the fields are stored first, then the row that makes it a job."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import secrets
import string
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from serve_app.api.admission import Admission, AdmissionGate, Deadline
from serve_app.api.auth import Caller, caller_of
from serve_app.api.body import RequestBody
from serve_app.api.endpoints import EndpointLog
from serve_app.api.headers import add_warning_headers
from serve_app.api.job_fields import (
    UPLOAD_ID,
    WEBHOOK_URL,
    JobOptions,
    check_misspelled,
    idempotency_key_of,
    take_job_options,
)
from serve_app.api.job_files import part_names, put_spool
from serve_app.api.job_requests import (
    REQUEST_FILE,
    JobRequest,
    PreparedJob,
    lasting_warnings,
    prepare_job,
    write_job_request,
)
from serve_app.api.limits import ApiLimits
from serve_app.api.service import TranscriptionService
from serve_app.api.spool import SpoolDirectory, SpoolFile
from serve_app.api.upload import Recording, UploadReader, with_query
from serve_app.api.usage import UsageMeter
from serve_app.api.webhook_urls import WebhookPolicy, WebhookSecretNames
from serve_app.audio.channel_counts import declared_channels
from serve_app.audio.durations import estimate_duration
from serve_app.audio.opening import BEGINNING_BYTES, check_beginning
from serve_app.core.errors import InvalidParameter, ParaserveError, StorageFull
from serve_app.core.job_errors import (
    IdempotencyConflict,
    QueueFull,
    StoreUnavailable,
    UploadIncomplete,
    UploadNotFound,
)
from serve_app.core.records import RequestContext
from serve_app.jobs.job_json import job_json
from serve_app.jobs.ports import Clock, JobFiles, JobStore
from serve_app.jobs.records import Job, NewJob, ResumableUpload

_ACCEPTED = 202
_ID_CHARS = string.ascii_letters + string.digits
_NUM_ID_CHARS = 24


@dataclass(frozen=True, slots=True)
class JobBackend:
    """What the routes of jobs work with.

    Attributes:
        store: of the jobs.
        files: of the jobs.
        meter: of the keys' usage.
        webhook_policy: checks URLs of webhooks.
        webhook_secrets: knows the keys that can sign.
        max_upload_bytes: largest recording that is uploaded in parts.
        clock: the present time in UTC.
        max_watchers: open streams of events in this process.
        watch_period_s: how often the store is asked for changes of watched jobs.
    """

    store: JobStore
    files: JobFiles
    meter: UsageMeter
    webhook_policy: WebhookPolicy
    webhook_secrets: WebhookSecretNames
    max_upload_bytes: int
    clock: Clock = lambda: datetime.now(UTC)
    max_watchers: int = 48
    watch_period_s: float = 1.0


@dataclass(frozen=True, slots=True)
class _Audio:
    """The recording of a job.

    Attributes:
        spool: its bytes; None if they are stored already.
        names: of its files; none if they are not stored yet.
        num_bytes: of them.
        audio_s: expected length.
        num_channels: that its header declares; None where only a decoder can tell.
    """

    spool: SpoolFile | None
    names: tuple[str, ...]
    num_bytes: int
    audio_s: float
    num_channels: int | None


class JobCreator:
    """Answers `POST /v1/jobs`.

    Args:
        service: says what it offers, and which hotwords its model can use.
        limits: of a request and of a recording.
        gate: reserves the bytes of uploads.
        upload_reader: receives recordings.
        backend: of the jobs.
        logger: told of files that could not be removed.
    """

    def __init__(
        self,
        service: TranscriptionService,
        limits: ApiLimits,
        gate: AdmissionGate,
        upload_reader: UploadReader,
        backend: JobBackend,
        logger: logging.Logger,
    ) -> None:
        self._service = service
        self._limits = limits
        self._gate = gate
        self._upload_reader = upload_reader
        self._backend = backend
        self._logger = logger
        self._directory = SpoolDirectory(limits.spool_dir)
        self._removals: set[asyncio.Task[None]] = set()

    async def create(self, request: Request, log: EndpointLog) -> Response:
        body = RequestBody(request, self._limits.upload_rate)
        with ExitStack() as held:
            held.callback(body.close)
            recording = await self._receive(request, body, held)
            return await self._create(request, body, recording, log)

    async def close(self) -> None:
        """Returns when files that nobody needs are removed."""
        if self._removals:
            await asyncio.wait(self._removals)

    async def _receive(self, request: Request, body: RequestBody, held: ExitStack) -> Recording:
        caller = caller_of(request)
        admission: Admission | None = None
        try:
            idempotency_key_of(request)
            await self._backend.meter.check_job(caller)
            admission = self._gate.store(caller, self._upload_reader.reserved_bytes(request))
            held.callback(admission.leave)
            recording = await self._upload_reader.receive(request, body, admission, UPLOAD_ID)
            held.callback(recording.spool.close)
        except ParaserveError as error:
            if admission is not None:
                admission.leave()
            await body.discard_after(error)
            raise
        return recording

    async def _create(
        self, request: Request, body: RequestBody, recording: Recording, log: EndpointLog
    ) -> Response:
        caller = caller_of(request)
        options, fields = take_job_options(with_query(recording.fields, request))
        if options.webhook_url is not None:
            self._check_webhook(options.webhook_url, caller)
        deadline = Deadline(self._limits.request_timeout_s)
        context = RequestContext(log.request_id, caller.name, deadline.unix, caller.weight)
        async with deadline.enforced():
            prepared = await body.unless_departed(
                prepare_job(fields, self._service, self._limits.audio, context)
            )
        parameters = prepared.parameters
        check_misspelled(parameters.ignored_fields)
        audio = await self._audio(recording, options, caller)
        log.num_bytes = audio.num_bytes
        new = NewJob(
            id=new_id("job"),
            key=caller.name,
            weight=caller.weight,
            audio_bytes=audio.num_bytes,
            audio_s=audio.audio_s * self._num_channels(audio, prepared),
            priority=options.priority,
            metadata=options.metadata,
            webhook_url=options.webhook_url,
            expires_at=self._expires_at(options),
            idempotency_key=idempotency_key_of(request),
            request_hash=await self._hash_of(request, options, fields, audio),
            request_id=log.request_id,
            upload_id=options.upload_id,
        )
        document = JobRequest(
            fields,
            audio.names or (f"{new.id}/audio",),
            parameters.model,
            parameters.language,
            lasting_warnings(parameters),
        )
        job = await self._store(new, document, audio, body)
        log.subject = job.id
        response = JSONResponse(job_json(job, await self._position(job)), _ACCEPTED)
        response.headers["Location"] = f"{root_of(request)}/v1/jobs/{job.id}"
        warnings = [str(one) for one in parameters.warnings]
        add_warning_headers(response, parameters.ignored_fields, warnings)
        return response

    def _check_webhook(self, url: str, caller: Caller) -> None:
        self._backend.webhook_policy.check(url)
        if not self._backend.webhook_secrets.has(caller.name):
            raise InvalidParameter(
                WEBHOOK_URL,
                f"needs a secret of the key {caller.name}, which the operator makes with "
                "`paraserve keys webhook-secret`",
            )

    def _num_channels(self, audio: _Audio, prepared: PreparedJob) -> int:
        """Returns the number of recordings that the job costs; see `TranscriptionHandler`."""
        if not prepared.parameters.separate_channels:
            return 1
        most = self._limits.audio.max_separate_channels
        return min(audio.num_channels or most, most)

    def _expires_at(self, options: JobOptions) -> datetime | None:
        if options.expires_after_s is None:
            return None
        return self._backend.clock() + timedelta(seconds=options.expires_after_s)

    async def _audio(self, recording: Recording, options: JobOptions, caller: Caller) -> _Audio:
        if options.upload_id is None:
            spool = recording.spool
            if spool.check_beginning is not None:
                # It was too short for a check while it came.
                content = os.pread(spool.file.fileno(), BEGINNING_BYTES, 0)
                check_beginning(content, is_whole=True)
            return _Audio(spool, (), spool.size_bytes, recording.audio_s, recording.num_channels)
        upload = await self._backend.store.get_upload(caller.name, options.upload_id)
        if not upload.is_complete:
            raise UploadIncomplete(upload.offset_bytes, upload.length_bytes)
        audio_s, num_channels = await self._estimate(upload)
        return _Audio(None, part_names(upload), upload.length_bytes, audio_s, num_channels)

    async def _estimate(self, upload: ResumableUpload) -> tuple[float, int | None]:
        """Returns the expected length and the declared channels of an upload.

        Headers are at the beginning or at the end, so a sparse file with the first and the last
        part is as good as the whole.
        """
        names = part_names(upload)
        ends = dict.fromkeys((0, len(names) - 1))
        spool = self._directory.open(upload.length_bytes)
        try:
            for number in ends:
                part = await self._backend.files.get_bytes(names[number])
                offset = sum(upload.parts[:number])
                await asyncio.to_thread(os.pwrite, spool.file.fileno(), part, offset)
            if len(names) == 1:
                content = os.pread(spool.file.fileno(), BEGINNING_BYTES, 0)
                check_beginning(content, is_whole=upload.length_bytes <= BEGINNING_BYTES)
            os.truncate(spool.file.fileno(), upload.length_bytes)
            spool.size_bytes = upload.length_bytes
            estimate = await asyncio.to_thread(estimate_duration, spool.content())
            num_channels = await asyncio.to_thread(declared_channels, spool.content())
        except FileNotFoundError:
            # Its files went with a job that took it; the store will say so.
            return 0.0, None
        finally:
            spool.close()
        return min(estimate.duration_s, self._limits.max_audio_s), num_channels

    async def _hash_of(
        self,
        request: Request,
        options: JobOptions,
        fields: Mapping[str, Sequence[str]],
        audio: _Audio,
    ) -> str:
        """Returns what is the same for two requests if the same was asked for."""
        if idempotency_key_of(request) is None:
            return ""
        told = json.dumps(
            [{name: list(values) for name, values in fields.items()}, asdict(options)],
            sort_keys=True,
        )
        content = hashlib.sha256(told.encode())
        if audio.spool is not None:
            await asyncio.to_thread(content.update, audio.spool.content().data)
        return content.hexdigest()

    async def _store(
        self, new: NewJob, document: JobRequest, audio: _Audio, body: RequestBody
    ) -> Job:
        try:
            await body.unless_departed(self._store_files(new.id, document, audio.spool))
        except BaseException:
            self._remove_files(new.id)
            raise
        try:
            job, is_new = await self._insert(new)
        except (IdempotencyConflict, QueueFull, UploadNotFound):
            self._remove_files(new.id)
            raise
        # After any other error the row may exist. If it does not, the sweeper removes the files.
        if not is_new:
            self._remove_files(new.id)
        return job

    async def _store_files(
        self, job_id: str, document: JobRequest, spool: SpoolFile | None
    ) -> None:
        files = self._backend.files
        if spool is not None:
            await put_spool(files, f"{job_id}/audio", spool)
        await files.put_bytes(f"{job_id}/{REQUEST_FILE}", write_job_request(document))

    async def _insert(self, new: NewJob) -> tuple[Job, bool]:
        """Adds the row; a caller who leaves meanwhile may still find it."""
        try:
            return await self._backend.store.create(new)
        except StoreUnavailable:
            return await self._backend.store.create(new)

    def _remove_files(self, job_id: str) -> None:
        task = asyncio.create_task(self._removed(job_id))
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)

    async def _removed(self, job_id: str) -> None:
        try:
            await self._backend.files.delete_all(job_id)
        except (StoreUnavailable, StorageFull, OSError) as error:
            # The sweeper removes what no job has.
            self._logger.warning(
                "files without a job are left for the sweeper",
                extra={"paraserve_job_id": job_id, "error": str(error)},
            )

    async def _position(self, job: Job) -> int | None:
        # The job is there, whether its position is known or not.
        with suppress(StoreUnavailable):
            return await self._backend.store.position(job)
        return None


def new_id(kind: str) -> str:
    """Returns an id that nobody can guess, such as job_4fV..."""
    return f"{kind}_{''.join(secrets.choice(_ID_CHARS) for _ in range(_NUM_ID_CHARS))}"


def root_of(request: Request) -> str:
    """Returns the path under which Serve has the API, without a slash at its end."""
    return str(request.scope.get("root_path", "")).rstrip("/")
