"""Validates the events that a browser sends to Gradio.

Gradio accepts any JSON as the value of any component, and reads, copies or fetches whatever it
takes for a file in it before the page's code runs. Each event is therefore parsed here and
rebuilt from its validated parts: no object from a browser reaches Gradio.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

MAX_EVENT_BYTES = 64 * 1024
"""Ample for the longest list of hotwords, each character of it escaped."""

_SESSION = re.compile(r"[A-Za-z0-9]{1,64}")
_EVENT_ID = re.compile(r"[0-9a-f]{32}")
_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")
_RUN = re.compile(r"[0-9a-f]{1,64}")
_MAX_COMPONENTS = 1000
_MAX_CHOICES = 16
_MAX_CHOICE_CHARACTERS = 256


class EventRefused(Exception):
    """An event is not one that the page sends."""


ValueCheck: TypeAlias = Callable[[object], object]
"""Returns a component's value as it may reach Gradio; raises `EventRefused` otherwise."""


@dataclass(frozen=True, slots=True)
class UploadNamed:
    """The recording that an event is about.

    Attributes:
        upload: what the page called it when it took it in.
        run: the browser's own name for what it makes of it.
    """

    upload: str
    run: str

    def value(self) -> dict[str, str]:
        return {"upload": self.upload, "run": self.run}


@dataclass(frozen=True, slots=True)
class SentEvent:
    """An event of the page.

    Attributes:
        session: as the browser calls it.
        function: number of what Gradio shall call.
        trigger: number of the component that the event comes from.
        values: of the function's inputs.
    """

    session: str
    function: int
    trigger: int | None
    values: tuple[object, ...]

    @property
    def upload(self) -> str | None:
        """Names the recording that the event is about, if it is about one."""
        named = [value.upload for value in self.values if isinstance(value, UploadNamed)]
        return named[0] if named else None

    def body(self, session: str) -> bytes:
        """Returns the event for Gradio, of a session as Gradio calls it."""
        values = [
            value.value() if isinstance(value, UploadNamed) else value for value in self.values
        ]
        return json.dumps(
            {
                "data": values,
                "event_data": None,
                "fn_index": self.function,
                "trigger_id": self.trigger,
                "session_hash": session,
            }
        ).encode()


@dataclass(frozen=True, slots=True)
class CancelledEvent:
    """The end of an event that nobody waits for any more."""

    session: str
    function: int
    event: str

    def body(self, session: str) -> bytes:
        return json.dumps(
            {"session_hash": session, "fn_index": self.function, "event_id": self.event}
        ).encode()


def parse_event(body: bytes, functions: Mapping[int, tuple[ValueCheck, ...]]) -> SentEvent:
    """Returns what a body says.

    Args:
        body: of a request.
        functions: what may be called, each with the checks of its inputs.

    Raises:
        EventRefused: it is not an event that the page sends.
    """
    sent = _object(body)
    function = _number(sent.get("fn_index"))
    checks = functions.get(function)
    if checks is None:
        raise EventRefused("fn_index names no function of this page")
    values = sent.get("data")
    if not isinstance(values, list) or len(values) != len(checks):
        raise EventRefused(f"data must be a list of {len(checks)} values")
    trigger = sent.get("trigger_id")
    return SentEvent(
        session_name(sent.get("session_hash")),
        function,
        None if trigger is None else _number(trigger),
        tuple(check(value) for check, value in zip(checks, values, strict=True)),
    )


def parse_cancel(body: bytes) -> CancelledEvent:
    """Returns which event a body ends.

    Raises:
        EventRefused: it names none.
    """
    sent = _object(body)
    return CancelledEvent(
        session_name(sent.get("session_hash")),
        _number(sent.get("fn_index")),
        _matching(_EVENT_ID, sent.get("event_id"), "event_id"),
    )


def session_name(value: object) -> str:
    """Returns a browser's name for one of its pages.

    Raises:
        EventRefused: it is not one.
    """
    return _matching(_SESSION, value, "session_hash")


def nothing(value: object) -> object:
    """A component whose value is the server's alone."""
    return None


def language(value: object) -> object:
    """The page's language, once it was chosen."""
    return value if value in ("zh", "en") else None


def text(max_characters: int) -> ValueCheck:
    """Returns the check of a text field."""

    def check(value: object) -> object:
        return None if value is None else _text(value, max_characters)

    return check


def choice(value: object) -> object:
    """A field for one of several."""
    return None if value is None or value == [] else _text(value, _MAX_CHOICE_CHARACTERS)


def choices(value: object) -> object:
    """A field for some of several."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > _MAX_CHOICES:
        raise EventRefused(f"a choice must be a list of at most {_MAX_CHOICES} strings")
    return [_text(one, _MAX_CHOICE_CHARACTERS) for one in value]


def upload(value: object) -> object:
    """The recording that the page's own route took in."""
    if not isinstance(value, dict) or set(value) != {"upload", "run"}:
        raise EventRefused("a recording must have the keys upload and run, and no others")
    return UploadNamed(
        _matching(_UPLOAD_ID, value["upload"], "upload"), _matching(_RUN, value["run"], "run")
    )


def _object(body: bytes) -> dict[str, object]:
    try:
        sent = json.loads(body, parse_constant=_no_number, parse_float=_no_number)
    except (ValueError, RecursionError):
        raise EventRefused("the body is not valid JSON, or is nested too deeply") from None
    if not isinstance(sent, dict):
        raise EventRefused("the body must be a JSON object")
    return sent


def _no_number(value: str) -> NoReturn:
    raise ValueError("the page sends whole numbers only")


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MAX_COMPONENTS:
        raise EventRefused("fn_index and trigger_id must be small whole numbers")
    return value


def _matching(pattern: re.Pattern[str], value: object, name: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise EventRefused(f"{name} is not valid")
    return value


def _text(value: object, max_characters: int) -> str:
    if not isinstance(value, str) or len(value) > max_characters:
        raise EventRefused(f"a value must be a string of at most {max_characters} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise EventRefused("a string contains characters that are not valid Unicode") from None
    return value
