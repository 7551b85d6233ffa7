"""The headers of the API's responses, for the OpenAPI document and for CORS.

`tests/api/test_response_headers.py` checks that no response has a header that is missing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serve_app.api.headers import (
    IGNORED_FIELDS_HEADER,
    PARTIAL_HEADER,
    REQUEST_ID_HEADER,
    WARNING_HEADER,
    WARNINGS_HEADER,
)

_TEXT: Mapping[str, Any] = {"type": "string"}
_OK = frozenset({200})


@dataclass(frozen=True, slots=True)
class ResponseHeader:
    """A header of responses.

    Attributes:
        name: as it is sent.
        description: of its content.
        schema: of its value.
        statuses: of responses that may have it; None for any.
        always_on: those that always have it, whichever part of the service answers.
        only_transcripts: whether no other route sends it.
        exposed: whether scripts of other origins may read it.
    """

    name: str
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: _TEXT)
    statuses: frozenset[int] | None = None
    always_on: frozenset[int] = frozenset()
    only_transcripts: bool = False
    exposed: bool = True


RESPONSE_HEADERS = (
    ResponseHeader(
        REQUEST_ID_HEADER,
        "The request's id in the service's log: the caller's own if it is well-formed, else a "
        "new one. Responses by the proxy itself lack it.",
        {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
        always_on=_OK,
    ),
    ResponseHeader(
        PARTIAL_HEADER,
        "Time spans without text, in seconds: 12.3-15.9,80-81.2. If there are too many for a "
        "header, the last entry gives the number of the others.",
        statuses=_OK,
        only_transcripts=True,
    ),
    ResponseHeader(
        WARNING_HEADER,
        "A warning about the transcript: it was made by a demo model.",
        statuses=_OK,
        only_transcripts=True,
    ),
    ResponseHeader(
        WARNINGS_HEADER,
        "Fields that had no effect, or only a partial one: a JSON list of sentences in ASCII.",
        {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"type": "array", "items": {"type": "string"}},
        },
        statuses=_OK,
        only_transcripts=True,
    ),
    ResponseHeader(
        IGNORED_FIELDS_HEADER,
        "Names of unknown fields that were ignored, comma-separated.",
        statuses=_OK,
        only_transcripts=True,
    ),
    ResponseHeader(
        "Retry-After",
        "Seconds after which a retry may succeed.",
        {"type": "integer", "minimum": 1},
        statuses=frozenset({429, 503}),
        always_on=frozenset({429, 503}),
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
        only_transcripts=True,
        exposed=False,
    ),
    ResponseHeader(
        "X-Accel-Buffering",
        "`no`, on a stream: tells nginx not to buffer events.",
        statuses=_OK,
        only_transcripts=True,
        exposed=False,
    ),
)

EXPOSED_HEADERS = (
    *(header.name for header in RESPONSE_HEADERS if header.exposed),
    "Content-Disposition",
)
"""Headers that scripts of other origins may read, besides those that CORS always allows."""


def describe_headers(status: int, *, of_transcripts: bool) -> dict[str, Any]:
    """Returns the headers of a response for the OpenAPI document."""
    return {
        header.name: {
            "description": header.description,
            "required": status in header.always_on,
            "schema": dict(header.schema),
        }
        for header in RESPONSE_HEADERS
        if (header.statuses is None or status in header.statuses)
        and (of_transcripts or not header.only_transcripts)
    }
