"""The headers of the API's responses, for the OpenAPI document and for CORS.

`tests/api/test_response_headers.py` checks that no response has a header that is missing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from serve_app.api.headers import (
    IGNORED_FIELDS_HEADER,
    PARTIAL_HEADER,
    REQUEST_ID_HEADER,
    WARNING_HEADER,
    WARNINGS_HEADER,
)

TRANSCRIPTIONS_PATH = "/v1/audio/transcriptions"

RouteKind: TypeAlias = Literal["transcript", "job", "job result", "job events", "upload", "other"]

_TEXT: Mapping[str, Any] = {"type": "string"}
_BYTES: Mapping[str, Any] = {"type": "integer", "minimum": 0}
_OK = frozenset({200})
_SUCCESS = frozenset({200, 201, 202, 204})
_TRANSCRIPTS: frozenset[RouteKind] = frozenset({"transcript", "job result"})
_STREAMS: frozenset[RouteKind] = frozenset({"transcript", "job events"})
_UPLOADS: frozenset[RouteKind] = frozenset({"upload"})


@dataclass(frozen=True, slots=True)
class ResponseHeader:
    """A header of responses.

    Attributes:
        name: as it is sent.
        description: of its content.
        schema: of its value.
        statuses: of responses that may have it; None for any.
        always_on: those that always have it, whichever part of the service answers.
        kinds: of the routes that send it; None for any.
        exposed: whether scripts of other origins may read it.
    """

    name: str
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: _TEXT)
    statuses: frozenset[int] | None = None
    always_on: frozenset[int] = frozenset()
    kinds: frozenset[RouteKind] | None = None
    exposed: bool = True


RESPONSE_HEADERS = (
    ResponseHeader(
        REQUEST_ID_HEADER,
        "The request's id in the service's log: the caller's own if it is well-formed, else a "
        "new one. Responses by the proxy itself lack it.",
        {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
        always_on=_SUCCESS,
    ),
    ResponseHeader(
        PARTIAL_HEADER,
        "Time spans without text, in seconds: 12.3-15.9,80-81.2. If there are too many for a "
        "header, the last entry gives the number of the others.",
        statuses=_OK,
        kinds=_TRANSCRIPTS,
    ),
    ResponseHeader(
        WARNING_HEADER,
        "A warning about the transcript: it was made by a demo model.",
        statuses=_OK,
        kinds=_TRANSCRIPTS,
    ),
    ResponseHeader(
        WARNINGS_HEADER,
        "Fields that had no effect, or only a partial one: a JSON list of sentences in ASCII.",
        {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"type": "array", "items": {"type": "string"}},
        },
        statuses=frozenset({200, 202}),
        kinds=_TRANSCRIPTS | {"job"},
    ),
    ResponseHeader(
        IGNORED_FIELDS_HEADER,
        "Names of unknown fields that were ignored, comma-separated.",
        statuses=frozenset({200, 202}),
        kinds=_TRANSCRIPTS | {"job"},
    ),
    ResponseHeader(
        "Retry-After",
        "Seconds after which a retry may succeed. A 429 for a quota that is used up has none.",
        {"type": "integer", "minimum": 1},
        statuses=frozenset({429, 503}),
        always_on=frozenset({503}),
    ),
    ResponseHeader(
        "x-should-retry",
        "`false` if a retry cannot succeed: the key's quota of the month is used up.",
        {"type": "string", "const": "false"},
        statuses=frozenset({429}),
    ),
    ResponseHeader(
        "Location",
        "Path of the job or the upload.",
        statuses=frozenset({201, 202}),
        always_on=frozenset({201, 202}),
        kinds=frozenset({"job", "upload"}),
    ),
    ResponseHeader(
        "Tus-Resumable",
        "Version of tus.",
        always_on=_SUCCESS,
        kinds=_UPLOADS,
    ),
    ResponseHeader(
        "Tus-Version",
        "Versions of tus that the service speaks.",
        statuses=frozenset({204, 412}),
        kinds=_UPLOADS,
    ),
    ResponseHeader(
        "Tus-Extension",
        "Extensions of tus that the service has.",
        statuses=frozenset({204}),
        kinds=_UPLOADS,
    ),
    ResponseHeader(
        "Tus-Max-Size",
        "Largest recording in bytes.",
        _BYTES,
        statuses=frozenset({204}),
        kinds=_UPLOADS,
    ),
    ResponseHeader(
        "Upload-Offset",
        "Bytes that have arrived.",
        _BYTES,
        statuses=_SUCCESS,
        kinds=_UPLOADS,
    ),
    ResponseHeader(
        "Upload-Length",
        "Size of the recording in bytes.",
        _BYTES,
        statuses=_OK,
        kinds=_UPLOADS,
    ),
    ResponseHeader(
        "Upload-Metadata",
        "Pairs of a key and a value in base64, as they were sent.",
        statuses=_OK,
        kinds=_UPLOADS,
    ),
    ResponseHeader(
        "Upload-Expires",
        "When the upload is removed unless a job has taken it.",
        statuses=_SUCCESS,
        kinds=_UPLOADS,
    ),
    ResponseHeader(
        "WWW-Authenticate",
        "How to send an API key.",
        statuses=frozenset({401, 403}),
        always_on=frozenset({401}),
        exposed=False,
    ),
    ResponseHeader(
        "Allow",
        "The methods that the path or the service supports.",
        statuses=frozenset({405}),
        always_on=frozenset({405}),
        exposed=False,
    ),
    ResponseHeader(
        "Connection",
        "`close` if the connection cannot be reused: the rest of the body is not read, or the "
        "service is stopping.",
        statuses=frozenset({408, 503}),
        exposed=False,
    ),
    ResponseHeader(
        "Cache-Control",
        "`no-store`, on a stream.",
        statuses=_OK,
        kinds=_STREAMS | _UPLOADS,
        exposed=False,
    ),
    ResponseHeader(
        "X-Accel-Buffering",
        "`no`, on a stream: tells nginx not to buffer events.",
        statuses=_OK,
        kinds=_STREAMS,
        exposed=False,
    ),
)

EXPOSED_HEADERS = (
    *(header.name for header in RESPONSE_HEADERS if header.exposed),
    "Content-Disposition",
)
"""Headers that scripts of other origins may read, besides those that CORS always allows."""


def kind_of(path: str) -> RouteKind:
    """Returns the kind of the route with a path, as the OpenAPI document writes it."""
    if path == TRANSCRIPTIONS_PATH:
        return "transcript"
    if path.startswith("/v1/uploads"):
        return "upload"
    if path.startswith("/v1/jobs"):
        last = path.rpartition("/")[2]
        return "job result" if last == "result" else "job events" if last == "events" else "job"
    return "other"


def describe_headers(status: int, kind: RouteKind) -> dict[str, Any]:
    """Returns the headers of a response for the OpenAPI document."""
    return {
        header.name: {
            "description": header.description,
            "required": status in header.always_on,
            "schema": dict(header.schema),
        }
        for header in RESPONSE_HEADERS
        if (header.statuses is None or status in header.statuses)
        and (header.kinds is None or kind in header.kinds)
    }
