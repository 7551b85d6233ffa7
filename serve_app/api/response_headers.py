"""The headers of the API's responses, for the OpenAPI document and for browsers.

`tests/api/test_response_headers.py` holds that no response has one that is not here.
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
        description: what it says.
        schema: of its value.
        statuses: of the responses that may have it; None for any.
        always_on: those of them that never lack it, whichever part of the service answers.
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
        "Names the request in the service's log: the caller's own id if it sent a well-formed "
        "one, else a new one. What the proxy itself answers has none.",
        {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
        always_on=_OK,
    ),
    ResponseHeader(
        PARTIAL_HEADER,
        "The spans whose text is missing, in seconds: 12.3-15.9,80-81.2. Where there are too many "
        "for a header, the number of the others comes last.",
        statuses=_OK,
        only_transcripts=True,
    ),
    ResponseHeader(
        WARNING_HEADER,
        "What to know before the transcript is relied upon: a demo model made it.",
        statuses=_OK,
        only_transcripts=True,
    ),
    ResponseHeader(
        WARNINGS_HEADER,
        "Fields that were not, or not fully, heeded: a JSON list of sentences in ASCII.",
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
        "Names of fields that are unknown and were ignored, with commas between them.",
        statuses=_OK,
        only_transcripts=True,
    ),
    ResponseHeader(
        "Retry-After",
        "Seconds until another try may succeed.",
        {"type": "integer", "minimum": 1},
        statuses=frozenset({429, 503}),
        always_on=frozenset({429, 503}),
    ),
    ResponseHeader(
        "WWW-Authenticate",
        "How to send a key.",
        statuses=frozenset({401, 403}),
        always_on=frozenset({401}),
        exposed=False,
    ),
    ResponseHeader(
        "Allow",
        "The methods that the path, or the service, knows.",
        statuses=frozenset({405}),
        always_on=frozenset({405}),
        exposed=False,
    ),
    ResponseHeader(
        "Connection",
        "`close` where the next request needs another connection: the rest of the body is not "
        "read, or the service is stopping.",
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
        "`no`, on a stream: nginx is to pass on each event as it comes.",
        statuses=_OK,
        only_transcripts=True,
        exposed=False,
    ),
)

EXPOSED_HEADERS = (
    *(header.name for header in RESPONSE_HEADERS if header.exposed),
    "Content-Disposition",
)
"""What scripts of other origins may read of an answer, besides what browsers always show."""


def describe_headers(status: int, *, of_transcripts: bool) -> dict[str, Any]:
    """Returns what the OpenAPI document says of the headers of a response."""
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
