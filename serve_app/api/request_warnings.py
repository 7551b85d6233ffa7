"""What a caller is told beside an answer that is otherwise as it was asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Response

from serve_app.api.headers import IGNORED_FIELDS_HEADER, WARNINGS_HEADER

_MAX_NAMES = 16
_MAX_NAME_LETTERS = 48
_MAX_HEADER_LETTERS = 2048
_NOT_SHOWN = re.compile(r"[^A-Za-z0-9_.\[\]-]")


@dataclass(frozen=True, slots=True)
class RequestWarning:
    """A field that was not, or not fully, heeded.

    Attributes:
        param: its name.
        message: why, as the predicate of a sentence about it.
    """

    param: str
    message: str

    def __str__(self) -> str:
        return f"{self.param} {self.message}"


def shown_names(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of fields, bounded, in letters that a header and a log may have."""
    shown = [_NOT_SHOWN.sub("?", name[:_MAX_NAME_LETTERS]) for name in names[:_MAX_NAMES]]
    if len(names) > _MAX_NAMES:
        shown.append("...")
    return tuple(shown)


def add_headers(
    response: Response, ignored: Sequence[str], warnings: Sequence[RequestWarning]
) -> None:
    """Names what was ignored in the response's headers.

    The warnings are a JSON list of sentences in ASCII. Where they are too long for a header, the
    last ones are left out of it.
    """
    if ignored:
        response.headers[IGNORED_FIELDS_HEADER] = ",".join(shown_names(ignored))
    told = [str(warning) for warning in warnings]
    while told and len(json.dumps(told)) > _MAX_HEADER_LETTERS:
        told.pop()
    if told:
        response.headers[WARNINGS_HEADER] = json.dumps(told)
