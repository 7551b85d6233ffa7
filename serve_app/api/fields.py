"""The fields of a request, normalized from the forms in which callers send them.

A list may come as `name` or `name[]`, once or repeated, `name[0]`, JSON text, or values with
commas between them; an object as JSON text or as `name[key]`. Empty fields count as absent.

Source: openai-python 3.57 writes lists as `name[]` and objects as `name[key]`
(`_qs.py`, `array_format="brackets"`); JSON text and commas are what curl's users write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from serve_app.api.subtitle_fields import SUBTITLE_FIELDS
from serve_app.core.errors import InvalidParameter, MalformedBody
from serve_app.settings.problems import nearest_name

VAD_FIELDS = ("type", "threshold", "prefix_padding_ms", "silence_duration_ms")
TEXT_FIELDS = SUBTITLE_FIELDS | {
    "model",
    "language",
    "prompt",
    "response_format",
    "temperature",
    "stream",
    "itn",
    "speaker_labels",
    "num_speakers",
    "min_speakers",
    "max_speakers",
    "subtitle_speakers",
    "channels",
    "subtitle_channels",
}
_LISTS = frozenset(
    {
        "languages",
        "include",
        "timestamp_granularities",
        "stages",
        "keywords",
        "refine_keywords",
        "known_speaker_names",
        "known_speaker_references",
    }
)
_KEYED = frozenset({"chunking_strategy", "hotwords", "replacements"})
_NAMES = TEXT_FIELDS | _LISTS | _KEYED
# `UploadReader` reads these earlier.
_BODY_NAMES = frozenset({"file", "audio_url"})
# FunASR's names for fields of ours.
_SYNONYMS = {"hotword": "hotwords", "use_itn": "itn"}
_NAME = re.compile(r"([^\[\]]+)(?:\[([^\[\]]*)\])?")
_COMMAS = re.compile(r"[,，、]")
_MAX_SHOWN_CHARS = 64
_MAX_FIELDS = 512
_MAX_VALUES = 100


@dataclass(frozen=True, slots=True)
class RequestFields:
    """The fields of a request by name, without empty ones.

    Attributes:
        texts: values of the fields that have one.
        lists: values of the fields that have several, as they were sent.
        hotwords: values of `hotwords`, as they were sent.
        hotword_entries: values of `hotwords[]`, each one word or phrase.
        hotword_weights: weights by word, of `hotwords[word]`.
        replacements: values of `replacements`, each JSON or lines; `replacements[wrong]` as JSON.
        chunking_strategy: its text, if it was sent as one.
        vad: parts of `chunking_strategy[...]`, by name.
        ignored: unknown names, as they were sent.
    """

    texts: Mapping[str, str]
    lists: Mapping[str, tuple[str, ...]]
    hotwords: tuple[str, ...] = ()
    hotword_entries: tuple[str, ...] = ()
    hotword_weights: Mapping[str, str] | None = None
    replacements: tuple[str, ...] = ()
    chunking_strategy: str | None = None
    vad: Mapping[str, str] | None = None
    ignored: tuple[str, ...] = ()

    def listed(self, name: str) -> tuple[str, ...]:
        """Returns the values of a list, each once, in order.

        Raises:
            InvalidParameter: it starts like JSON but is not a JSON list of strings, or it has
                too many values.
        """
        values = tuple(dict.fromkeys(split_values(name, self.lists.get(name, ()))))
        if len(values) > _MAX_VALUES:
            raise InvalidParameter(
                name, f"has {len(values)} values; at most {_MAX_VALUES} are accepted"
            )
        return values


def read_fields(sent: Mapping[str, Sequence[str]], refuse_unknown: bool = False) -> RequestFields:
    """Sorts the values by field.

    An unknown name is ignored, unless it is probably a misspelled name of a field that was not
    sent.

    Raises:
        InvalidParameter: a name is misspelled or, if `refuse_unknown`, unknown; or a field for
            one value has several.
        MalformedBody: there are too many fields.
    """
    if len(sent) > _MAX_FIELDS:
        raise MalformedBody(f"it has more than {_MAX_FIELDS} fields")
    reader = _Reader()
    for sent_name, values in sent.items():
        reader.take(sent_name, [value for value in values if value.strip()])
    for sent_name in reader.unknown:
        _check_unknown(sent_name, reader.seen, refuse_unknown)
    return reader.fields()


def split_values(name: str, values: Iterable[str]) -> list[str]:
    """Returns the parts of a list's values, in order, without empty ones.

    Raises:
        InvalidParameter: a value begins like JSON and is not a JSON list of strings.
    """
    found: list[str] = []
    for value in values:
        if value.lstrip()[:1] in ("[", '"'):
            found += _json_strings(name, value)
        else:
            found += _COMMAS.split(value)
    return [part.strip() for part in found if part.strip()]


def parse_json(name: str, text: str, otherwise: str) -> object:
    """Returns what JSON text holds.

    Raises:
        InvalidParameter: it is not JSON; the message says what could be passed `otherwise`.
    """
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidParameter(name, f"is not valid JSON; pass {otherwise}") from None
    return parsed


def _json_strings(name: str, text: str) -> list[str]:
    otherwise = "a JSON list of strings or values separated by commas"
    parsed = parse_json(name, text, otherwise)
    values = [parsed] if isinstance(parsed, str) else parsed
    strings = [one for one in values if isinstance(one, str)] if isinstance(values, list) else []
    if not isinstance(values, list) or len(strings) < len(values):
        raise InvalidParameter(name, f"must be {otherwise}")
    return strings


class _Reader:
    """Collects the fields of one request."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.unknown: list[str] = []
        self._texts: dict[str, str] = {}
        self._lists: dict[str, list[str]] = {}
        self._words: list[str] = []
        self._entries: list[str] = []
        self._weights: dict[str, str] = {}
        self._replacements: list[str] = []
        self._strategy: str | None = None
        self._vad: dict[str, str] = {}

    def take(self, sent_name: str, values: list[str]) -> None:
        match = _NAME.fullmatch(sent_name)
        name, key = match.groups() if match else (sent_name, None)
        name = _SYNONYMS.get(name, name)
        is_list = not key or key.isdecimal()
        if name in TEXT_FIELDS and is_list:
            self._take_single(name, values)
        elif name in _LISTS and is_list:
            self._lists.setdefault(name, []).extend(values)
        elif name == "hotwords":
            self._take_hotwords(key, values)
        elif name == "replacements":
            self._take_replacements(key, values)
        elif name == "chunking_strategy" and not key:
            self._take_strategy(values)
        elif name == "chunking_strategy" and key in VAD_FIELDS:
            self._take_part(sent_name, key, values)
        else:
            self.unknown.append(sent_name)
            return
        if values:
            self.seen.add(name if name != "chunking_strategy" or not key else sent_name)

    def fields(self) -> RequestFields:
        return RequestFields(
            self._texts,
            {name: tuple(values) for name, values in self._lists.items() if values},
            tuple(self._words),
            tuple(self._entries),
            self._weights or None,
            tuple(self._replacements),
            self._strategy,
            self._vad or None,
            tuple(self.unknown),
        )

    def _take_single(self, name: str, values: list[str]) -> None:
        if len(values) > 1 or (values and name in self._texts):
            raise InvalidParameter(name, "must be given once")
        self._texts.update((name, value) for value in values)

    def _take_hotwords(self, key: str | None, values: list[str]) -> None:
        if key is None:
            self._words += values
        elif not key or key.isdecimal():
            self._entries += values
        else:
            self._weights.update((key, value) for value in values)

    def _take_replacements(self, key: str | None, values: list[str]) -> None:
        if not key or key.isdecimal():
            self._replacements += values
        else:
            self._replacements += [json.dumps({key: value}) for value in values]

    def _take_strategy(self, values: list[str]) -> None:
        if len(values) > 1 or (values and self._strategy is not None):
            raise InvalidParameter("chunking_strategy", "must be given once")
        for value in values:
            self._strategy = value

    def _take_part(self, sent_name: str, key: str, values: list[str]) -> None:
        if len(values) > 1:
            raise InvalidParameter(sent_name, "must be given once")
        self._vad.update((key, value) for value in values)


def _check_unknown(sent_name: str, seen: set[str], refuse: bool) -> None:
    match = _NAME.fullmatch(sent_name)
    name, key = match.groups() if match else (sent_name, None)
    meant = (
        _vad_field_meant(key, seen)
        if name == "chunking_strategy" and key
        else nearest_name(name, _NAMES - seen)
    )
    # JSON may contain a lone surrogate, which a response cannot.
    shown = sent_name[:_MAX_SHOWN_CHARS].encode(errors="replace").decode()
    if meant is not None:
        raise InvalidParameter(shown, f"is not a known field; did you mean {meant}?")
    if refuse:
        known = ", ".join(sorted(_NAMES | _BODY_NAMES))
        raise InvalidParameter(shown, f"is not a known field; known fields: {known}")


def _vad_field_meant(key: str, seen: set[str]) -> str | None:
    free = [part for part in VAD_FIELDS if f"chunking_strategy[{part}]" not in seen]
    meant = nearest_name(key, free)
    return None if meant is None else f"chunking_strategy[{meant}]"
