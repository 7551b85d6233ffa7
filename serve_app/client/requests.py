"""Requests: the URL of a service, a recording, and the form fields."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeAlias

Recording: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO
"""A path, the content of a file, or an open file; one that cannot seek is sent once."""

FieldValue: TypeAlias = str | bool | float | Sequence[str] | Mapping[str, object]


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """What is asked of a recording.

    Attributes:
        model: None for the service's default.
        stages: of vad, asr and punctuation; () for all that are deployed.
        language: as zh; None for the service's default.
        itn: write numbers in digits.
        hotwords: words to prefer, or words and weights.
        words: whether words with times are wanted.
        speaker_labels: whether to label who speaks.
        num_speakers: how many speak, if that is known; asks for labels.
        known_speakers: recordings of 2 to 10 s of speakers, by the names that their labels
            shall be; asks for labels.
        separate_channels: recognize each channel for itself, instead of their mix.
        fields: further fields of the API by their names; lists are sent as `name[]`.
    """

    model: str | None = None
    stages: Sequence[str] = ()
    language: str | None = None
    itn: bool = False
    hotwords: Sequence[str] | Mapping[str, float] = ()
    words: bool = False
    speaker_labels: bool = False
    num_speakers: int | None = None
    known_speakers: Mapping[str, Recording] = field(default_factory=dict)
    separate_channels: bool = False
    fields: Mapping[str, FieldValue] = field(default_factory=dict)

    @property
    def has_labels(self) -> bool:
        return self.speaker_labels or self.num_speakers is not None or bool(self.known_speakers)

    def form(self, model: str, response_format: str, *, stream: bool = False) -> Form:
        """Returns the fields as they are sent."""
        form: Form = {"model": model, "response_format": response_format}
        if stream:
            form["stream"] = "true"
        if self.stages:
            form["stages"] = ",".join(self.stages)
        if self.language:
            form["language"] = self.language
        if self.itn:
            form["itn"] = "true"
        if self.hotwords:
            hotwords = self.hotwords
            words = dict(hotwords) if isinstance(hotwords, Mapping) else list(hotwords)
            form["hotwords"] = json.dumps(words, ensure_ascii=False)
        if self.words:
            form["timestamp_granularities[]"] = ["word", "segment"]
        if self.has_labels:
            form["speaker_labels"] = "true"
        if self.num_speakers is not None:
            form["num_speakers"] = str(self.num_speakers)
        if self.known_speakers:
            form["known_speaker_names[]"] = list(self.known_speakers)
            form["known_speaker_references[]"] = [*map(_data_url, self.known_speakers.values())]
        if self.separate_channels:
            form["channels"] = "separate"
        for name, value in self.fields.items():
            form.update([form_field(name, value)])
        return form


def _data_url(recording: Recording) -> str:
    """Returns a recording as a data URL; the service finds out its format.

    Raises:
        OSError: the file cannot be read.
    """
    with opened(recording) as content:
        encoded = base64.b64encode(content.read()).decode()
    return f"data:application/octet-stream;base64,{encoded}"


Form: TypeAlias = dict[str, str | list[str]]


def form_field(name: str, value: FieldValue) -> tuple[str, str | list[str]]:
    """Returns a field as it is sent: lists as `name[]`, mappings as JSON."""
    if isinstance(value, bool):
        return name, "true" if value else "false"
    if isinstance(value, str | int | float):
        return name, str(value)
    if isinstance(value, Mapping):
        return name, json.dumps(dict(value), ensure_ascii=False)
    return name if name.endswith("[]") else f"{name}[]", [str(one) for one in value]


def service_url(given: str) -> str:
    """Returns the address of a service: with a scheme, without /v1 and slashes at its end.

    Raises:
        ValueError: it is not a URL.
    """
    url = given.strip()
    if "://" not in url:
        url = f"http://{url}"
    scheme, _, rest = url.partition("://")
    rest = rest.rstrip("/")
    if rest.endswith("/v1/audio/transcriptions"):
        rest = rest.removesuffix("/audio/transcriptions")
    rest = rest.removesuffix("/v1").rstrip("/")
    if scheme.lower() not in ("http", "https") or not rest or any(c.isspace() for c in rest):
        raise ValueError(f"{given!r} is not the URL of a service, such as http://localhost:8000")
    return f"{scheme.lower()}://{rest}"


def opened(recording: Recording) -> AbstractContextManager[BinaryIO]:
    """Opens a recording; a file that the caller opened stays open.

    Raises:
        OSError: the file cannot be opened.
    """
    if isinstance(recording, bytes):
        return io.BytesIO(recording)
    if isinstance(recording, str | os.PathLike):
        return Path(recording).open("rb")
    return nullcontext(recording)


def name_of(recording: Recording) -> str:
    """Returns the file name that is sent; the service ignores it."""
    if isinstance(recording, str | os.PathLike):
        return Path(recording).name
    return "recording"
