"""`Paraserve.jobs`: asynchronous transcriptions, which the service keeps whatever happens to it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from typing import Any, TypeAlias, overload
from urllib.parse import quote

import httpx

from serve_app.client.answers import Rendered, Transcription, rendered_of, transcription_of
from serve_app.client.errors import ClientError, ServiceUnreachable, not_the_api
from serve_app.client.job_records import (
    Job,
    JobOptions,
    JobPage,
    JobPriority,
    job_of,
    page_of,
)
from serve_app.client.job_watch import EventReader, JobWatch, OnProgress
from serve_app.client.requests import (
    FieldValue,
    Form,
    Recording,
    TranscriptionRequest,
    form_field,
    name_of,
    opened,
)
from serve_app.client.sending import AsyncSender, Call, Flow, QueryValue, Sender, json_of
from serve_app.client.uploads import OnSent, size_of, upload_flow

JobOrId: TypeAlias = Job | str

RESUMABLE_BYTES = 64 * 2**20
"""A recording of at least this size is uploaded in parts before its job is created."""

_PATH = "/v1/jobs"
_ANY = TranscriptionRequest()
_FORMAT = "verbose_json"
_FAILURES_PER_RETRY = 10
"""An upload of hours outlives a restart of the service, which takes longer than a request waits."""

_REOPEN_S = 0.5
_WATCH_TIMEOUT_S = 45.0
"""Without a sign of life; the service sends one at least every 10 s."""


def _path(job: JobOrId, what: str = "") -> str:
    job_id = job.id if isinstance(job, Job) else job
    if not job_id.strip("./ "):
        raise ValueError(f"{job_id!r} is not the id of a job")
    return f"{_PATH}/{quote(job_id, safe='')}{what}"


def _request(request: TranscriptionRequest, given: dict[str, FieldValue]) -> TranscriptionRequest:
    """Returns a request with further fields, some of which may be its own attributes."""
    own = {field.name for field in fields_of(TranscriptionRequest)} - {"fields"}
    attributes: dict[str, Any] = {name: value for name, value in given.items() if name in own}
    others = {name: value for name, value in given.items() if name not in own}
    return replace(request, **attributes, fields={**request.fields, **others})


def _check_source(recording: Recording | None, audio_url: str | None, upload: str | None) -> None:
    if sum(source is not None for source in (recording, audio_url, upload)) != 1:
        raise ValueError("a job needs one of a recording, audio_url and upload")


def _creation(
    form: Form, options: JobOptions, file: tuple[str, Any] | None = None, repeated: bool = True
) -> Call:
    """Returns the call that makes a job; with one key, a second call returns the first's job."""
    texts = form | options.form()
    parts: list[tuple[str, Any]] = [
        (name, (None, value))
        for name, values in texts.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    if file is not None:
        parts.append(("file", file))
    key = options.idempotency_key or str(uuid.uuid4())
    headers = {"Idempotency-Key": key}
    return Call("POST", _PATH, headers=headers, body={"files": parts}, repeated=repeated)


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the audio of a job comes from: a recording, a URL, or an upload that is complete."""

    recording: Recording | None
    audio_url: str | None
    upload: str | None
    on_sent: OnSent | None
    max_failures: int


def _creation_flow(source: _Source, form: Form, options: JobOptions, url: str) -> Flow[Job]:
    """Makes a job; a large recording is uploaded in parts before.

    Args:
        source: of the audio.
        form: of the request.
        options: of the job.
        url: of the service, for messages.
    """
    if source.audio_url is not None:
        call = _creation(form | {"audio_url": source.audio_url}, options)
        return _job_in((yield call), url)
    if source.recording is None:
        call = _creation(form | {"upload_id": source.upload or ""}, options)
        return _job_in((yield call), url)
    name = name_of(source.recording)
    with opened(source.recording) as content:
        if content.seekable() and size_of(content) >= RESUMABLE_BYTES:
            upload_id = yield from upload_flow(
                content, name, url, on_sent=source.on_sent, max_failures=source.max_failures
            )
            call = _creation(form | {"upload_id": upload_id}, options)
        else:
            call = _creation(form, options, (name, content), content.seekable())
        return _job_in((yield call), url)


def _job_in(response: httpx.Response | None, url: str) -> Job:
    if response is None:
        raise not_the_api(url)
    return json_of(response, url, job_of)


def _page_call(statuses: str | Iterable[str], limit: int, after: str) -> Call:
    listed = statuses if isinstance(statuses, str) else ",".join(statuses)
    return Call("GET", _PATH, query={"status": listed, "limit": limit, "after": after})


def _result_call(job: JobOrId, response_format: str, fields: dict[str, FieldValue]) -> Call:
    query: dict[str, QueryValue] = dict(form_field(*each) for each in fields.items())
    return Call("GET", _path(job, "/result"), query={"response_format": response_format} | query)


def _events_call(job: JobOrId) -> Call:
    headers = {"Accept": "text/event-stream"}
    path = _path(job, "/events")
    return Call("GET", path, headers=headers, repeated=False, timeout_s=_WATCH_TIMEOUT_S)


def _ended_early(url: str) -> ServiceUnreachable:
    return ServiceUnreachable(0, "unreachable", f"{url} ended the connection at once")


class Jobs:
    """The jobs of the caller's API key. A job may be given by its id everywhere.

    Every method raises `ClientError` if the service refuses or stays out of reach.

    Args:
        sender: of the client.
        model_of: returns the model that a request is sent with.
        max_retries: of the client.
    """

    def __init__(
        self, sender: Sender, model_of: Callable[[TranscriptionRequest], str], max_retries: int
    ) -> None:
        self._sender = sender
        self._model_of = model_of
        self._max_failures = max_retries * _FAILURES_PER_RETRY

    def create(
        self,
        recording: Recording | None = None,
        request: TranscriptionRequest = _ANY,
        *,
        audio_url: str | None = None,
        upload: str | None = None,
        webhook_url: str | None = None,
        metadata: dict[str, str] | None = None,
        priority: JobPriority = "normal",
        expires_after_s: float | None = None,
        idempotency_key: str | None = None,
        on_sent: OnSent | None = None,
        **fields: FieldValue,
    ) -> Job:
        """Makes a job of a recording, a URL that the service fetches, or an upload.

        When it returns, the job is stored: nothing but `cancel` and `delete` ends it early. A
        creation that is repeated after a broken connection makes one job.

        Args:
            recording: one of 64 MiB or more is uploaded in parts, see `upload`.
            request: what is asked of the recording.
            audio_url: of the recording, if the service fetches recordings.
            upload: id of a complete upload.
            webhook_url: told of the final state, see `verify_webhook`.
            metadata: the caller's own, up to 16 pairs.
            priority: low, normal or high, among the jobs of this key.
            expires_after_s: end the job as expired if it has not started by then.
            idempotency_key: name of this creation; made up unless given. Give one to make one
                job even if the caller itself is started again.
            on_sent: called with the bytes that have arrived and the size, for one in parts.
            fields: attributes of the request, or other fields of the API by their names.

        Raises:
            ValueError: not exactly one of recording, audio_url and upload is given.
            OSError: the recording cannot be read.
        """
        _check_source(recording, audio_url, upload)
        asked = _request(request, fields)
        form = asked.form(self._model_of(asked), _FORMAT)
        options = JobOptions(
            webhook_url, metadata or {}, priority, expires_after_s, idempotency_key
        )
        source = _Source(recording, audio_url, upload, on_sent, self._max_failures)
        return self._sender.run(_creation_flow(source, form, options, self._sender.url))

    def upload(
        self, recording: Recording, *, upload: str | None = None, on_sent: OnSent | None = None
    ) -> str:
        """Uploads a recording in parts; returns the id of the upload, for `create`.

        After a broken connection, or a restart of the service, it goes on where it was.

        Args:
            recording: that can seek.
            upload: id of an upload of the same recording to go on with.
            on_sent: called with the bytes that have arrived and the size.

        Raises:
            ValueError: the recording cannot seek.
            OSError: it cannot be read, or `upload` is of a longer one.
        """
        with opened(recording) as content:
            flow = upload_flow(
                content,
                name_of(recording),
                self._sender.url,
                upload_id=upload,
                on_sent=on_sent,
                max_failures=self._max_failures,
            )
            return self._sender.run(flow)

    def get(self, job: JobOrId) -> Job:
        """Returns a job as it is now."""
        return self._job(Call("GET", _path(job)))

    def list(self, status: str | Iterable[str] = (), *, page_size: int = 100) -> Iterator[Job]:
        """Yields the jobs, the newest first; page by page.

        Args:
            status: one or several to yield; () for all.
            page_size: jobs to ask for at once, at most 100.
        """
        page = self.page(status, limit=page_size)
        while True:
            # Asked for before the caller sees the page, who may delete the job that it ends with.
            following = (
                self.page(status, limit=page_size, after=page.jobs[-1])
                if page.has_more and page.jobs
                else None
            )
            yield from page.jobs
            if following is None:
                return
            page = following

    def page(
        self, status: str | Iterable[str] = (), *, limit: int = 20, after: JobOrId = ""
    ) -> JobPage:
        """Returns the jobs after one, the newest first."""
        last = after.id if isinstance(after, Job) else after
        call = _page_call(status, limit, last)
        return json_of(self._sender.send(call), self._sender.url, page_of)

    def events(self, job: JobOrId) -> Iterator[Job]:
        """Yields the job at once and at each change, until its final state.

        The service ends the stream now and then, which is opened again; a broken one is an error.
        """
        last: Job | None = None
        while last is None or not last.is_final:
            reader = EventReader(self._sender.url)
            with self._sender.stream(_events_call(job)) as response:
                for line in response.iter_lines():
                    if (seen := reader.read(line)) is not None and seen != last:
                        last = seen
                        yield seen
            if not reader.num_read:
                raise _ended_early(self._sender.url)
            if not (last and last.is_final):
                time.sleep(_REOPEN_S)

    def wait(
        self,
        job: JobOrId,
        *,
        progress: OnProgress | None = None,
        timeout_s: float | None = None,
    ) -> Job:
        """Returns the job once it is in its final state, which may be another than completed.

        It follows the job's events, asks for its state where these do not come through, and
        outlives a restart of the service of up to ten minutes.

        Args:
            job: to wait for.
            progress: called with the job at each change.
            timeout_s: longest time to wait; None for as long as it takes.

        Raises:
            TimeoutError: the time is over; the job goes on.
        """
        watch = JobWatch(progress, timeout_s)
        while True:
            if watch.follows_events and (ended := self._followed(job, watch)) is not None:
                return ended
            try:
                seen = self._job(Call("GET", _path(job), repeated=False))
            except ClientError as error:
                watch.missed(error)
            else:
                if watch.saw(seen):
                    return seen
            time.sleep(watch.pause_s())

    @overload
    def result(self, job: JobOrId) -> Transcription: ...

    @overload
    def result(self, job: JobOrId, response_format: str, **fields: FieldValue) -> Rendered: ...

    def result(
        self, job: JobOrId, response_format: str | None = None, **fields: FieldValue
    ) -> Transcription | Rendered:
        """Returns the transcript of a completed job.

        Args:
            job: that is completed.
            response_format: text, json, verbose_json, diarized_json, srt or vtt: the answer as it
                comes. None for a `Transcription`.
            fields: of the API that concern the format, such as `subtitle_max_chars`.
        """
        if response_format is None:
            response = self._sender.send(_result_call(job, _FORMAT, {}))
            return json_of(response, self._sender.url, transcription_of)
        response = self._sender.send(_result_call(job, response_format, fields))
        return rendered_of(response.text, response.headers)

    def cancel(self, job: JobOrId) -> Job:
        """Ends a job; one that has ended stays as it is."""
        return self._job(Call("POST", _path(job, "/cancel")))

    def delete(self, job: JobOrId) -> None:
        """Removes a job with its recording and its result, whatever its state."""
        self._sender.send(Call("DELETE", _path(job)))

    def deliver_webhook_again(self, job: JobOrId) -> Job:
        """Sends the webhook of a job that has ended once more, with the same id."""
        return self._job(Call("POST", _path(job, "/webhook")))

    def _followed(self, job: JobOrId, watch: JobWatch) -> Job | None:
        """Follows the events as long as they come; returns the job if it ended."""
        reader = EventReader(self._sender.url)
        try:
            with self._sender.stream(_events_call(job)) as response:
                for line in response.iter_lines():
                    watch.check_time()
                    if (seen := reader.read(line)) is not None and watch.saw(seen):
                        return seen
        except ClientError as error:
            watch.lost_events(error)
        return None

    def _job(self, call: Call) -> Job:
        return json_of(self._sender.send(call), self._sender.url, job_of)


class AsyncJobs:
    """As `Jobs`, for asyncio."""

    def __init__(
        self,
        sender: AsyncSender,
        model_of: Callable[[TranscriptionRequest], Awaitable[str]],
        max_retries: int,
    ) -> None:
        self._sender = sender
        self._model_of = model_of
        self._max_failures = max_retries * _FAILURES_PER_RETRY

    async def create(
        self,
        recording: Recording | None = None,
        request: TranscriptionRequest = _ANY,
        *,
        audio_url: str | None = None,
        upload: str | None = None,
        webhook_url: str | None = None,
        metadata: dict[str, str] | None = None,
        priority: JobPriority = "normal",
        expires_after_s: float | None = None,
        idempotency_key: str | None = None,
        on_sent: OnSent | None = None,
        **fields: FieldValue,
    ) -> Job:
        """As `Jobs.create`."""
        _check_source(recording, audio_url, upload)
        asked = _request(request, fields)
        form = asked.form(await self._model_of(asked), _FORMAT)
        options = JobOptions(
            webhook_url, metadata or {}, priority, expires_after_s, idempotency_key
        )
        source = _Source(recording, audio_url, upload, on_sent, self._max_failures)
        return await self._sender.run(_creation_flow(source, form, options, self._sender.url))

    async def upload(
        self, recording: Recording, *, upload: str | None = None, on_sent: OnSent | None = None
    ) -> str:
        """As `Jobs.upload`."""
        with opened(recording) as content:
            flow = upload_flow(
                content,
                name_of(recording),
                self._sender.url,
                upload_id=upload,
                on_sent=on_sent,
                max_failures=self._max_failures,
            )
            return await self._sender.run(flow)

    async def get(self, job: JobOrId) -> Job:
        """As `Jobs.get`."""
        return await self._job(Call("GET", _path(job)))

    async def list(
        self, status: str | Iterable[str] = (), *, page_size: int = 100
    ) -> AsyncIterator[Job]:
        """As `Jobs.list`."""
        page = await self.page(status, limit=page_size)
        while True:
            following = (
                await self.page(status, limit=page_size, after=page.jobs[-1])
                if page.has_more and page.jobs
                else None
            )
            for job in page.jobs:
                yield job
            if following is None:
                return
            page = following

    async def page(
        self, status: str | Iterable[str] = (), *, limit: int = 20, after: JobOrId = ""
    ) -> JobPage:
        """As `Jobs.page`."""
        last = after.id if isinstance(after, Job) else after
        call = _page_call(status, limit, last)
        return json_of(await self._sender.send(call), self._sender.url, page_of)

    async def events(self, job: JobOrId) -> AsyncGenerator[Job]:
        """As `Jobs.events`; closing it closes the request."""
        last: Job | None = None
        while last is None or not last.is_final:
            reader = EventReader(self._sender.url)
            async with self._sender.stream(_events_call(job)) as response:
                async for line in response.aiter_lines():
                    if (seen := reader.read(line)) is not None and seen != last:
                        last = seen
                        yield seen
            if not reader.num_read:
                raise _ended_early(self._sender.url)
            if not (last and last.is_final):
                await asyncio.sleep(_REOPEN_S)

    async def wait(
        self,
        job: JobOrId,
        *,
        progress: OnProgress | None = None,
        timeout_s: float | None = None,
    ) -> Job:
        """As `Jobs.wait`."""
        watch = JobWatch(progress, timeout_s)
        while True:
            if watch.follows_events and (ended := await self._followed(job, watch)) is not None:
                return ended
            try:
                seen = await self._job(Call("GET", _path(job), repeated=False))
            except ClientError as error:
                watch.missed(error)
            else:
                if watch.saw(seen):
                    return seen
            await asyncio.sleep(watch.pause_s())

    @overload
    async def result(self, job: JobOrId) -> Transcription: ...

    @overload
    async def result(
        self, job: JobOrId, response_format: str, **fields: FieldValue
    ) -> Rendered: ...

    async def result(
        self, job: JobOrId, response_format: str | None = None, **fields: FieldValue
    ) -> Transcription | Rendered:
        """As `Jobs.result`."""
        if response_format is None:
            response = await self._sender.send(_result_call(job, _FORMAT, {}))
            return json_of(response, self._sender.url, transcription_of)
        response = await self._sender.send(_result_call(job, response_format, fields))
        return rendered_of(response.text, response.headers)

    async def cancel(self, job: JobOrId) -> Job:
        """As `Jobs.cancel`."""
        return await self._job(Call("POST", _path(job, "/cancel")))

    async def delete(self, job: JobOrId) -> None:
        """As `Jobs.delete`."""
        await self._sender.send(Call("DELETE", _path(job)))

    async def deliver_webhook_again(self, job: JobOrId) -> Job:
        """As `Jobs.deliver_webhook_again`."""
        return await self._job(Call("POST", _path(job, "/webhook")))

    async def _followed(self, job: JobOrId, watch: JobWatch) -> Job | None:
        reader = EventReader(self._sender.url)
        try:
            async with self._sender.stream(_events_call(job)) as response:
                async for line in response.aiter_lines():
                    watch.check_time()
                    if (seen := reader.read(line)) is not None and watch.saw(seen):
                        return seen
        except ClientError as error:
            watch.lost_events(error)
        return None

    async def _job(self, call: Call) -> Job:
        return json_of(await self._sender.send(call), self._sender.url, job_of)
