"""The form fields that ask for speaker labels.

Source: OpenAI's API reference, "Create transcription": `known_speaker_names[]` and
`known_speaker_references[]` belong together, at most 4 of each; a reference is a data URL with
2 to 10 s of audio. `speaker_labels` and the numbers of speakers are extensions.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from serve_app.api.fields import RequestFields, parse_json
from serve_app.audio import AudioDecoder, AudioLimits
from serve_app.core.errors import AudioError, AudioTooLong, AudioTooShort, InvalidParameter
from serve_app.core.pcm import SAMPLE_RATE_HZ, Pcm
from serve_app.core.records import FileBytes
from serve_app.core.speakers import MAX_SPEAKERS, KnownSpeaker, SpeakerOptions

NAMES = "known_speaker_names"
REFERENCES = "known_speaker_references"
NUM, MIN, MAX = "num_speakers", "min_speakers", "max_speakers"
SPEAKER_NUMBERS = (NUM, MIN, MAX)

MAX_KNOWN_SPEAKERS = 4
MIN_REFERENCE_S, MAX_REFERENCE_S = 2.0, 10.0
MAX_NAME_CHARS = 64
# Encoders pad what they write.
_PADDING_S = 0.1
_DATA_URL = re.compile(r"\s*data:[^,;]{0,100}(?:;[^,;]{1,100}){0,8};base64,", re.IGNORECASE)
_MAX_SHOWN_LETTERS = 64


@dataclass(frozen=True, slots=True)
class SpeakerFields:
    """What a request tells about the speakers; the references are not decoded yet.

    Attributes:
        options: without known speakers.
        names: of the known speakers.
        references: a data URL for each name.
    """

    options: SpeakerOptions
    names: tuple[str, ...] = ()
    references: tuple[str, ...] = ()


def parse_speaker_fields(fields: RequestFields) -> SpeakerFields:
    """Checks the numbers and the known speakers, except for the content of the references.

    Raises:
        InvalidParameter: a value is out of bounds, or two contradict each other.
    """
    num, least, most = (_number(fields, name) for name in SPEAKER_NUMBERS)
    if num is not None and (least is not None or most is not None):
        raise InvalidParameter(NUM, f"cannot be combined with {MIN} or {MAX}")
    if least is not None and most is not None and least > most:
        raise InvalidParameter(MIN, f"is larger than {MAX}")
    names = tuple(name.strip() for name in _listed(fields, NAMES))
    references = _listed(fields, REFERENCES)
    check_names(names)
    if len(names) != len(references):
        raise InvalidParameter(
            NAMES if len(names) > len(references) else REFERENCES,
            f"must be as many as {REFERENCES if len(names) > len(references) else NAMES}: there "
            f"are {len(names)} names and {len(references)} references",
        )
    return SpeakerFields(SpeakerOptions(num, least, most), names, references)


def has_reference(fields: RequestFields) -> bool:
    """Returns whether the request has a reference that may be a data URL."""
    values = fields.lists.get(REFERENCES, ())
    return any("data:" in value[:_MAX_SHOWN_LETTERS].lower() for value in values)


async def read_speaker_options(fields: SpeakerFields, limits: AudioLimits) -> SpeakerOptions:
    """Returns the options with the recordings of the known speakers, decoded on a thread.

    Args:
        fields: of the request.
        limits: of accepted audio.

    Raises:
        InvalidParameter: a reference is not a data URL with 2 to 10 s of audio.
    """
    if not fields.names:
        return fields.options
    known = await asyncio.to_thread(_decode_all, fields, limits)
    return replace(fields.options, known=known)


def _number(fields: RequestFields, name: str) -> int | None:
    text = fields.texts.get(name)
    if text is None:
        return None
    digits = text.strip()
    if not digits.isascii() or not digits.isdecimal() or not 1 <= int(digits[:4]) <= MAX_SPEAKERS:
        raise InvalidParameter(
            name,
            f"must be a whole number from 1 to {MAX_SPEAKERS}, not {text[:_MAX_SHOWN_LETTERS]!r}",
        )
    return int(digits[:4])


def _listed(fields: RequestFields, name: str) -> tuple[str, ...]:
    """Returns the values of a list; a comma does not divide them, since data URLs have one."""
    found: list[str] = []
    for value in fields.lists.get(name, ()):
        if value.lstrip()[:1] == "[":
            parsed = parse_json(name, value, "a JSON list of strings or one field for each value")
            if not isinstance(parsed, list) or not all(isinstance(one, str) for one in parsed):
                raise InvalidParameter(name, "must be a list of strings")
            found += parsed
        else:
            found.append(value)
    if len(found) > MAX_KNOWN_SPEAKERS:
        raise InvalidParameter(
            name, f"has {len(found)} values; at most {MAX_KNOWN_SPEAKERS} are accepted"
        )
    return tuple(found)


def check_names(names: Sequence[str], param: str = NAMES) -> None:
    """Checks the names of known speakers.

    Raises:
        InvalidParameter: one is empty, too long or not printable, or two are the same.
    """
    for name in names:
        if not name or len(name) > MAX_NAME_CHARS or not name.isprintable():
            raise InvalidParameter(
                param, f"must each have 1 to {MAX_NAME_CHARS} printable characters"
            )
    if len(set(names)) < len(names):
        raise InvalidParameter(param, "must differ from each other")


def _decode_all(fields: SpeakerFields, limits: AudioLimits) -> tuple[KnownSpeaker, ...]:
    return tuple(
        KnownSpeaker(name, _decode(number, reference, limits))
        for number, (name, reference) in enumerate(
            zip(fields.names, fields.references, strict=True), 1
        )
    )


def _decode(number: int, reference: str, limits: AudioLimits) -> Pcm:
    """Returns the samples of a reference.

    Raises:
        InvalidParameter: it is not a data URL with 2 to 10 s of audio.
    """
    match = _DATA_URL.match(reference)
    if match is None:
        raise InvalidParameter(
            REFERENCES,
            f"must be data URLs, such as data:audio/wav;base64,...; reference {number} is not",
        )
    try:
        content = base64.b64decode("".join(reference[match.end() :].split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidParameter(REFERENCES, f"must be base64; reference {number} is not") from None
    return decode_reference(
        np.frombuffer(content, np.uint8), limits, REFERENCES, f"reference {number}"
    )


def decode_reference(audio: FileBytes | Path, limits: AudioLimits, param: str, which: str) -> Pcm:
    """Returns the samples of the recording of a known speaker.

    Args:
        audio: content of the file, or its path.
        limits: of accepted audio.
        param: that it was given with, for errors.
        which: names the recording among those of the parameter, for errors.

    Raises:
        InvalidParameter: it is not 2 to 10 s of audio, or it is damaged or silent.
        OSError: the file cannot be read.
    """
    length = InvalidParameter(
        param, f"must last {MIN_REFERENCE_S:g} to {MAX_REFERENCE_S:g} s; {which} does not"
    )
    longest = replace(limits, max_duration_s=MAX_REFERENCE_S + _PADDING_S)
    try:
        with AudioDecoder(audio, longest) as decoder:
            pcm: Pcm = np.concatenate([np.empty(0, np.int16), *decoder.blocks()])
            is_damaged = bool(decoder.damage)
    except (AudioTooLong, AudioTooShort):
        raise length from None
    except AudioError as error:
        raise InvalidParameter(param, f"must be audio; {which} cannot be used: {error}") from None
    if len(pcm) < MIN_REFERENCE_S * SAMPLE_RATE_HZ:
        raise length
    if is_damaged or not pcm.any():
        what = "damaged" if is_damaged else "silent"
        raise InvalidParameter(param, f"must be speech; {which} is {what}")
    return pcm
