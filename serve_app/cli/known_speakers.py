"""`paraserve transcribe --speaker NAME=FILE`: recordings of the voices of known speakers."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Sequence
from pathlib import Path

from serve_app.api.speaker_fields import MAX_KNOWN_SPEAKERS, check_names, decode_reference
from serve_app.audio import AudioLimits
from serve_app.core.errors import InvalidParameter
from serve_app.core.pcm import SAMPLE_RATE_HZ, Pcm
from serve_app.core.speakers import KnownSpeaker

OPTION = "--speaker"


def read_known_speakers(
    assignments: Sequence[str], limits: AudioLimits
) -> tuple[KnownSpeaker, ...]:
    """Returns the speakers of `NAME=FILE` each, with their recordings decoded.

    Args:
        assignments: values of the option.
        limits: of accepted audio.

    Raises:
        InvalidParameter: there are too many, one is not of this form, names repeat, or a file
            is missing or not 2 to 10 s of speech.
    """
    if len(assignments) > MAX_KNOWN_SPEAKERS:
        raise InvalidParameter(
            OPTION, f"is given {len(assignments)} times; at most {MAX_KNOWN_SPEAKERS} are accepted"
        )
    pairs = [_divided(assignment) for assignment in assignments]
    check_names([name for name, _ in pairs], f"the names of {OPTION}")
    return tuple(KnownSpeaker(name, _decoded(file, limits)) for name, file in pairs)


def reference_url(pcm: Pcm) -> str:
    """Returns samples at 16 kHz as the data URL of a WAV file, at most 0.5 MB for 10 s."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(SAMPLE_RATE_HZ)
        writer.writeframes(pcm.astype("<i2").tobytes())
    return f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"


def _divided(assignment: str) -> tuple[str, Path]:
    name, _, file = assignment.partition("=")
    if not name.strip() or not file.strip():
        raise InvalidParameter(OPTION, f"must be NAME=FILE, not {assignment!r}")
    return name.strip(), Path(file.strip()).expanduser()


def _decoded(file: Path, limits: AudioLimits) -> Pcm:
    try:
        if not file.is_file():
            raise InvalidParameter(OPTION, f"names {file}, which is not a file")
        return decode_reference(file, limits, OPTION, str(file))
    except OSError as error:
        raise InvalidParameter(
            OPTION, f"names {file}, which cannot be read: {error.strerror or error}"
        ) from None
