"""Validates the events that a browser sends to Gradio.

Gradio accepts any JSON as the value of any component, and reads, copies or fetches whatever it
takes for a file in it before the page's code runs. Each event is therefore parsed here and
rebuilt from its validated parts: no object from a browser reaches Gradio.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import NoReturn, TypeAlias

from serve_app.core.speakers import MAX_SPEAKERS
from serve_app.ui.client import Order

MAX_EVENT_BYTES = 64 * 1024
"""Ample for the longest list of hotwords, each character of it escaped."""
MAX_HOTWORDS_CHARACTERS = 4000
MAX_KEY_CHARACTERS = 256
MIN_RATE_HZ, MAX_RATE_HZ = 8_000, 48_000

_SESSION = re.compile(r"[A-Za-z0-9]{1,64}")
_EVENT_ID = re.compile(r"[0-9a-f]{32}")
_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")
_RUN = re.compile(r"[0-9a-f]{1,64}")
_MAX_COMPONENTS = 1000
_MAX_STAGES = 16
_MAX_NAME_CHARACTERS = 256
_LANGUAGE = re.compile(r"[a-z-]{0,16}")
_ORDER_FIELDS = {
    "model",
    "stages",
    "hotwords",
    "language",
    "itn",
    "num_speakers",
    "separate_channels",
}


class EventRefused(Exception):
    """An event is not one that the page sends."""


ValueCheck: TypeAlias = Callable[[object], object]
"""Returns a component's value as it may reach Gradio; raises `EventRefused` otherwise."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A recording that is to be transcribed.

    Attributes:
        upload: id of the upload.
        run: the browser's id for this transcription.
        key: the visitor's API key, or "".
        order: the options.
    """

    upload: str
    run: str
    key: str
    order: Order

    def value(self) -> dict[str, object]:
        return {
            "upload": self.upload,
            "run": self.run,
            "key": self.key,
            "order": {**asdict(self.order), "stages": list(self.order.stages)},
        }


@dataclass(frozen=True, slots=True)
class CaptionRequest:
    """What live captions are to be like.

    Attributes:
        key: the visitor's API key, or "".
        order: the options; those that live transcription does not have are ignored.
        rate_hz: of the samples.
    """

    key: str
    order: Order
    rate_hz: int


@dataclass(frozen=True, slots=True)
class JobOrder:
    """A recording that is to become a job.

    Attributes:
        upload: id of the upload.
        name: of the file, for the visitor.
        order: the options.
    """

    upload: str
    name: str
    order: Order


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
        """The id of the upload that the event is about, if it is about one."""
        named = [value.upload for value in self.values if isinstance(value, Submission)]
        return named[0] if named else None

    def body(self, session: str) -> bytes:
        """Returns the event for Gradio, of a session as Gradio calls it."""
        values = [
            value.value() if isinstance(value, Submission) else value for value in self.values
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


def parse_job_order(body: bytes) -> JobOrder:
    """Returns which recording is to become a job.

    Raises:
        EventRefused: the body is something else.
    """
    sent = _fields(_object(body), {"upload", "name", "order"}, "a job")
    return JobOrder(
        _matching(_UPLOAD_ID, sent["upload"], "upload"),
        _text(sent["name"], _MAX_NAME_CHARACTERS),
        _order(sent["order"]),
    )


def session_name(value: object) -> str:
    """Returns a browser's name for one of its pages.

    Raises:
        EventRefused: it is not one.
    """
    return _matching(_SESSION, value, "session_hash")


def api_key(value: object) -> object:
    """The visitor's API key; "" for none."""
    return "" if value is None else _text(value, MAX_KEY_CHARACTERS)


def submission(value: object) -> Submission:
    """A recording that the upload route accepted, and the options for it.

    Raises:
        EventRefused: it is something else.
    """
    sent = _fields(value, {"upload", "run", "key", "order"}, "a submission")
    return Submission(
        _matching(_UPLOAD_ID, sent["upload"], "upload"),
        _matching(_RUN, sent["run"], "run"),
        _text(sent["key"], MAX_KEY_CHARACTERS),
        _order(sent["order"]),
    )


def parse_captions(body: bytes) -> CaptionRequest:
    """Returns what a page asks for before it sends audio.

    Raises:
        EventRefused: it is something else.
    """
    sent = _fields(_object(body), {"key", "order", "rate"}, "captions")
    rate_hz = sent["rate"]
    if isinstance(rate_hz, bool) or not isinstance(rate_hz, int):
        raise EventRefused("rate must be a whole number")
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise EventRefused(f"rate must be from {MIN_RATE_HZ} to {MAX_RATE_HZ}")
    return CaptionRequest(_text(sent["key"], MAX_KEY_CHARACTERS), _order(sent["order"]), rate_hz)


def _order(value: object) -> Order:
    sent = _fields(value, _ORDER_FIELDS, "order")
    stages = sent["stages"]
    if not isinstance(stages, list) or len(stages) > _MAX_STAGES:
        raise EventRefused(f"stages must be a list of at most {_MAX_STAGES} strings")
    return Order(
        _text(sent["model"], _MAX_NAME_CHARACTERS),
        tuple(_text(stage, _MAX_NAME_CHARACTERS) for stage in stages),
        _text(sent["hotwords"], MAX_HOTWORDS_CHARACTERS).strip(),
        _matching(_LANGUAGE, sent["language"], "language"),
        _flag("itn", sent["itn"]),
        _num_speakers(sent["num_speakers"]),
        _flag("separate_channels", sent["separate_channels"]),
    )


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise EventRefused(f"{name} must be true or false")
    return value


def _num_speakers(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SPEAKERS:
        raise EventRefused(f"num_speakers must be a whole number from 0 to {MAX_SPEAKERS}")
    return value


def _fields(value: object, names: set[str], what: str) -> dict[str, object]:
    if not isinstance(value, dict) or set(value) != names:
        listed = ", ".join(sorted(names))
        raise EventRefused(f"{what} must have the keys {listed}, and no others")
    return value


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
