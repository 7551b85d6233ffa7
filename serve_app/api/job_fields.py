"""The fields and headers of requests about jobs, beside those of a transcription."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast, get_args

from fastapi import Request

from serve_app.api.fields import parse_json
from serve_app.core.errors import InvalidParameter
from serve_app.core.job_errors import JobNotFound, UploadNotFound
from serve_app.jobs.job_json import PRIORITIES
from serve_app.jobs.records import JobStatus
from serve_app.settings.problems import nearest_name

UPLOAD_ID, WEBHOOK_URL, METADATA = "upload_id", "webhook_url", "metadata"
PRIORITY, EXPIRES_AFTER = "priority", "expires_after"
JOB_FIELDS = (UPLOAD_ID, WEBHOOK_URL, METADATA, PRIORITY, EXPIRES_AFTER)
IDEMPOTENCY_HEADER = "Idempotency-Key"

MAX_PAIRS, MAX_KEY_CHARS, MAX_VALUE_CHARS = 16, 64, 512
"""Of metadata, as in OpenAI's API."""
MAX_EXPIRES_AFTER_S = 30 * 86_400
MAX_IDEMPOTENCY_CHARS = 255
MAX_PAGE, DEFAULT_PAGE = 100, 20

_MAX_SHOWN_CHARS = 64
_STREAM = "stream"
_FALSE = {"false", "0", "no", "off"}
_JOB_ID = re.compile(r"job_[A-Za-z0-9_-]{8,64}", re.ASCII)
_UPLOAD_ID = re.compile(r"upl_[A-Za-z0-9_-]{8,64}", re.ASCII)
_PAIR = re.compile(r"metadata\[([^\[\]]*)\]")
_VISIBLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What a request says about the job itself.

    Attributes:
        upload_id: of the resumable upload that is the recording; None if it came otherwise.
        webhook_url: told of the final state; not checked yet.
        metadata: the caller's own.
        priority: as in `NewJob`.
        expires_after_s: time in which the job has to start; None for any.
    """

    upload_id: str | None = None
    webhook_url: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    expires_after_s: float | None = None


def take_job_options(
    fields: Mapping[str, Sequence[str]],
) -> tuple[JobOptions, dict[str, Sequence[str]]]:
    """Returns what the fields say about the job, and the other fields.

    Raises:
        InvalidParameter: a field is given twice or has a wrong value, or `stream` is asked for.
    """
    texts: dict[str, str] = {}
    pairs: dict[str, str] = {}
    others: dict[str, Sequence[str]] = {}
    for name, values in fields.items():
        if name in JOB_FIELDS:
            texts.update((name, value) for value in _at_most_one(name, values))
        elif match := _PAIR.fullmatch(name):
            pairs.update((match[1], value) for value in _at_most_one(name, values))
        elif name.partition("[")[0] == _STREAM:
            _refuse_stream(values)
        else:
            others[name] = values
    options = JobOptions(
        _upload_id(texts.get(UPLOAD_ID)),
        texts.get(WEBHOOK_URL),
        _metadata(texts.get(METADATA), pairs),
        _priority(texts.get(PRIORITY)),
        _expires_after_s(texts.get(EXPIRES_AFTER)),
    )
    return options, others


def check_misspelled(names: Sequence[str]) -> None:
    """Checks unknown names for those that are probably meant for a job's field.

    Raises:
        InvalidParameter: one is.
    """
    for name in names:
        if (meant := nearest_name(name.partition("[")[0], JOB_FIELDS)) is not None:
            raise InvalidParameter(
                name[:_MAX_SHOWN_CHARS], f"is not a known field; did you mean {meant}?"
            )


def idempotency_key_of(request: Request) -> str | None:
    """Returns the caller's name for the creation of a job.

    Raises:
        InvalidParameter: it is given twice, too long, or not in visible ASCII.
    """
    values = request.headers.getlist(IDEMPOTENCY_HEADER)
    if not values:
        return None
    if len(values) > 1 or len(values[0]) > MAX_IDEMPOTENCY_CHARS or not _VISIBLE.match(values[0]):
        raise InvalidParameter(
            IDEMPOTENCY_HEADER,
            f"must be given once, with 1 to {MAX_IDEMPOTENCY_CHARS} characters of visible ASCII",
        )
    return values[0]


def job_id_of(request: Request) -> str:
    """Returns the job that a path names.

    Raises:
        JobNotFound: no job can have that id.
    """
    job_id = str(request.path_params["job_id"])
    if not _JOB_ID.fullmatch(job_id):
        raise JobNotFound(_shown(job_id))
    return job_id


def upload_id_of(request: Request) -> str:
    """Returns the resumable upload that a path names.

    Raises:
        UploadNotFound: no upload can have that id.
    """
    upload_id = str(request.path_params["upload_id"])
    if not _UPLOAD_ID.fullmatch(upload_id):
        raise UploadNotFound(_shown(upload_id))
    return upload_id


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which jobs a list is to have.

    Attributes:
        statuses: to include; none for all.
        after: id of the last job of the page before.
        limit: most jobs of the page.
    """

    statuses: tuple[JobStatus, ...]
    after: str | None
    limit: int


def page_request_of(request: Request) -> PageRequest:
    """Raises:
    InvalidParameter: a query parameter is unknown, repeated or has a wrong value.
    JobNotFound: no job can have the id `after`.
    """
    query = request.query_params
    for name in query:
        if name not in {"status", "status[]", "after", "limit"}:
            raise InvalidParameter(
                name[:_MAX_SHOWN_CHARS], "is not a parameter of a list: status, after, limit"
            )
    listed = [*query.getlist("status"), *query.getlist("status[]")]
    statuses = [one.strip() for value in listed for one in value.split(",") if one.strip()]
    for status in statuses:
        if status not in get_args(JobStatus):
            raise InvalidParameter(
                "status",
                f"must be one of {', '.join(get_args(JobStatus))}, not "
                f"{status[:_MAX_SHOWN_CHARS]!r}",
            )
    after = _at_most_one("after", query.getlist("after"))
    if after and not _JOB_ID.fullmatch(after[0]):
        raise JobNotFound(_shown(after[0]))
    return PageRequest(
        tuple(dict.fromkeys(cast(list[JobStatus], statuses))),
        after[0] if after else None,
        _limit(_at_most_one("limit", query.getlist("limit"))),
    )


def _limit(values: Sequence[str]) -> int:
    if not values:
        return DEFAULT_PAGE
    digits = values[0].strip()
    if not digits.isascii() or not digits.isdecimal() or not 1 <= int(digits[:4]) <= MAX_PAGE:
        raise InvalidParameter("limit", f"must be a whole number from 1 to {MAX_PAGE}")
    return int(digits[:4])


def _at_most_one(name: str, values: Sequence[str]) -> list[str]:
    """Returns the value of a field without an empty one."""
    found = [value.strip() for value in values if value.strip()]
    if len(found) > 1:
        raise InvalidParameter(name[:_MAX_SHOWN_CHARS], "must be given once")
    return found


def _refuse_stream(values: Sequence[str]) -> None:
    if any(value.strip() and value.strip().lower() not in _FALSE for value in values):
        raise InvalidParameter(
            _STREAM, "does not apply to jobs; /v1/jobs/ID/events tells of their progress"
        )


def _upload_id(text: str | None) -> str | None:
    if text is not None and not _UPLOAD_ID.fullmatch(text):
        raise UploadNotFound(_shown(text))
    return text


def _priority(text: str | None) -> int:
    name = (text or "normal").lower()
    if name not in PRIORITIES:
        raise InvalidParameter(PRIORITY, f"must be one of {', '.join(PRIORITIES)}")
    return PRIORITIES[name]


def _expires_after_s(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_EXPIRES_AFTER_S:
        raise InvalidParameter(
            EXPIRES_AFTER, f"must be a number of seconds above 0 and at most {MAX_EXPIRES_AFTER_S}"
        )
    return seconds


def _metadata(text: str | None, pairs: Mapping[str, str]) -> dict[str, str]:
    found = {} if text is None else _object_in(text)
    if found.keys() & pairs.keys():
        raise InvalidParameter(METADATA, "must have each key once")
    found |= pairs
    if len(found) > MAX_PAIRS:
        raise InvalidParameter(METADATA, f"must have at most {MAX_PAIRS} pairs")
    for key, value in found.items():
        if not 1 <= len(key) <= MAX_KEY_CHARS or not key.isprintable():
            raise InvalidParameter(
                METADATA, f"must have keys of 1 to {MAX_KEY_CHARS} printable characters"
            )
        if len(value) > MAX_VALUE_CHARS or not _is_storable(value):
            raise InvalidParameter(
                METADATA,
                f"must have values of at most {MAX_VALUE_CHARS} characters, without null",
            )
    return found


def _object_in(text: str) -> dict[str, str]:
    parsed = parse_json(METADATA, text, "an object with strings, or metadata[KEY]")
    if not isinstance(parsed, dict) or not all(isinstance(one, str) for one in parsed.values()):
        raise InvalidParameter(METADATA, "must be a JSON object whose values are strings")
    return dict(parsed)


def _is_storable(text: str) -> bool:
    """Returns whether a database takes the text: no null, no half of a character."""
    return "\x00" not in text and text == text.encode(errors="replace").decode()


def _shown(name: str) -> str:
    return name[:_MAX_SHOWN_CHARS].encode("ascii", "replace").decode()
