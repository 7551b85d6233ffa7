"""The errors of jobs, resumable uploads and quotas; see `serve_app.core.errors`."""

from __future__ import annotations

from serve_app.core.errors import RequestError, ServiceError


class JobNotFound(RequestError):
    """The key has no job of that id.

    Args:
        job_id: as the caller gave it.
    """

    code = "job_not_found"

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)

    def __str__(self) -> str:
        return f"there is no job {str(self.args[0])[:64]}"


class JobNotFinished(RequestError):
    """The result of a job was asked for that has none yet.

    Args:
        status: of the job.
    """

    code = "job_not_finished"

    def __init__(self, status: str) -> None:
        super().__init__(status)

    def __str__(self) -> str:
        return f"the job is {self.args[0]}; its result is there once it is completed"


class JobWithoutResult(RequestError):
    """The job ended in another way than completed.

    Args:
        status: of the job.
        reason: why, as a clause; "" if there is nothing to say.
    """

    code = "job_without_result"

    def __init__(self, status: str, reason: str = "") -> None:
        super().__init__(status, reason)

    def __str__(self) -> str:
        status, reason = self.args
        return f"the job is {status}{reason and ': '}{reason}; it has no result"


class IdempotencyConflict(RequestError):
    """The Idempotency-Key belongs to another request."""

    code = "idempotency_conflict"

    def __str__(self) -> str:
        return "this Idempotency-Key was used for a request with another recording or other fields"


class NoWebhook(RequestError):
    """There is nothing to deliver again."""

    code = "no_webhook"

    def __str__(self) -> str:
        return "the job has no webhook_url, or has not ended yet"


class UploadNotFound(RequestError):
    """The key has no resumable upload of that id.

    Args:
        upload_id: as the caller gave it.
    """

    code = "upload_not_found"

    def __init__(self, upload_id: str) -> None:
        super().__init__(upload_id)

    def __str__(self) -> str:
        return f"there is no upload {str(self.args[0])[:64]}; it may have expired"


class UploadConflict(RequestError):
    """A part of a resumable upload begins elsewhere than the stored parts end.

    Args:
        offset_bytes: of the stored parts.
    """

    code = "upload_conflict"

    def __init__(self, offset_bytes: int) -> None:
        super().__init__(offset_bytes)

    def __str__(self) -> str:
        return f"the upload's offset is {self.args[0]} bytes; go on from there"


class UploadIncomplete(RequestError):
    """A job was to be made of an upload of which parts are missing.

    Args:
        offset_bytes: of the stored parts.
        length_bytes: of the whole recording.
    """

    code = "upload_incomplete"

    def __init__(self, offset_bytes: int, length_bytes: int) -> None:
        super().__init__(offset_bytes, length_bytes)

    def __str__(self) -> str:
        return f"only {self.args[0]} of the upload's {self.args[1]} bytes have arrived"


class TusVersionNotSupported(RequestError):
    """The request speaks another version of the protocol of resumable uploads.

    Args:
        version: that the service speaks.
    """

    code = "tus_version_not_supported"

    def __init__(self, version: str) -> None:
        super().__init__(version)

    def __str__(self) -> str:
        return f"the header Tus-Resumable must be {self.args[0]}"


class PartTypeNotSupported(RequestError):
    """A part of a resumable upload has another Content-Type than bytes at an offset.

    Args:
        expected: the type.
    """

    code = "part_type_not_supported"

    def __init__(self, expected: str) -> None:
        super().__init__(expected)

    def __str__(self) -> str:
        return f"the Content-Type of a part must be {self.args[0]}"


class TooManyUploads(ServiceError):
    """The key has as many resumable uploads as it may have.

    Args:
        max_open: the limit.
    """

    code = "too_many_uploads"

    def __init__(self, max_open: int) -> None:
        super().__init__(max_open)

    def __str__(self) -> str:
        return f"{self.args[0]} uploads are open already; create jobs of them, or delete some"


class QueueFull(ServiceError):
    """The key has as many queued jobs as it may have.

    Args:
        max_queued: the limit.
    """

    code = "job_queue_full"

    def __init__(self, max_queued: int) -> None:
        super().__init__(max_queued)

    def __str__(self) -> str:
        return f"{self.args[0]} jobs are queued already; create more once some have started"


class QuotaExceeded(ServiceError):
    """The key has used its audio of this calendar month.

    Args:
        max_audio_s: the quota in s.
        until: when it begins anew, as an ISO 8601 date in UTC.
    """

    code = "quota_exceeded"

    def __init__(self, max_audio_s: float, until: str) -> None:
        super().__init__(max_audio_s, until)

    def __str__(self) -> str:
        hours = float(str(self.args[0])) / 3600
        return f"the key has used its {hours:g} hours of audio of this month; until {self.args[1]}"


class StoreUnavailable(ServiceError):
    """The database or the storage of the jobs does not answer."""

    code = "job_store_unavailable"

    def __str__(self) -> str:
        return "jobs are not available for the moment; try again shortly"
