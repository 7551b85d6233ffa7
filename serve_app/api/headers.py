"""Builds response headers from data: always short and in plain ASCII.

HAProxy replaces a response whose headers exceed its buffer (16 KiB by default) by 502, and the
transcript is lost. So the length of every header is limited.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import accumulate

from fastapi import Response

MAX_VALUE_CHARS = 1024
MAX_HEADERS_BYTES = 8 * 1024
REQUEST_ID_HEADER = "X-Request-ID"
PARTIAL_HEADER = "X-Paraserve-Partial"
WARNING_HEADER = "X-Paraserve-Warning"
WARNINGS_HEADER = "X-Paraserve-Warnings"
IGNORED_FIELDS_HEADER = "X-Paraserve-Ignored-Fields"

_MAX_NAMES = 16
_MAX_NAME_CHARS = 48
_MAX_WARNINGS_CHARS = 2048
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_.\[\]-]")
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")
_NOT_PLAIN_BYTES = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_MORE_CHARS = len(", ...(+1000000000 more)")


def text_header(text: str) -> str:
    """Returns a text as a header value: one line of ASCII, truncated if it is too long."""
    plain = _NOT_PLAIN.sub("?", text)
    return plain if len(plain) <= MAX_VALUE_CHARS else f"{plain[: MAX_VALUE_CHARS - 3]}..."


def list_header(items: Iterable[str], separator: str = ",") -> str:
    """Returns a header value that lists items, and the number of those that did not fit."""
    plain = [_NOT_PLAIN.sub("?", item) for item in items]
    whole = separator.join(plain)
    if len(whole) <= MAX_VALUE_CHARS:
        return whole
    room = MAX_VALUE_CHARS - _MORE_CHARS
    ends = accumulate(len(item) + len(separator) for item in plain)
    num_shown = sum(1 for end in ends if end <= room)
    more = f"...(+{len(plain) - num_shown} more)"
    return separator.join([*plain[:num_shown], more])


def bounded_headers(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Returns the headers of a response without control characters and within the limits.

    This is a safety net for code that does not use the functions above.
    """
    bounded = [(name, _NOT_PLAIN_BYTES.sub(b" ", value)) for name, value in headers]
    room = MAX_HEADERS_BYTES
    if sum(len(name) + len(value) + 4 for name, value in bounded) <= room:
        return bounded
    kept = []
    # The shortest first, so that long ones are dropped.
    order = sorted(range(len(bounded)), key=lambda index: len(bounded[index][1]))
    for index in order:
        name, value = bounded[index]
        if len(value) > MAX_VALUE_CHARS:
            value = value[: MAX_VALUE_CHARS - 3] + b"..."
        room -= len(name) + len(value) + 4
        if room >= 0:
            kept.append((index, (name, value)))
    return [header for _, header in sorted(kept)]


def shown_names(names: Sequence[str]) -> tuple[str, ...]:
    """Returns field names for a header or a log line: few, short, and in safe characters."""
    shown = [_NOT_IN_NAME.sub("?", name[:_MAX_NAME_CHARS]) for name in names[:_MAX_NAMES]]
    if len(names) > _MAX_NAMES:
        shown.append("...")
    return tuple(shown)


def add_warning_headers(
    response: Response, ignored_fields: Sequence[str], warnings: Sequence[str]
) -> None:
    """Lists ignored fields and warnings in the response's headers.

    The warnings are a JSON list of sentences in ASCII. If they are too long for a header, the
    last ones are left out.
    """
    if ignored_fields:
        response.headers[IGNORED_FIELDS_HEADER] = ",".join(shown_names(ignored_fields))
    listed = list(warnings)
    while listed and len(json.dumps(listed)) > _MAX_WARNINGS_CHARS:
        listed.pop()
    if listed:
        response.headers[WARNINGS_HEADER] = json.dumps(listed)
