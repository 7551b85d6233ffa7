"""The result JSON of one recording, and the summary in its first lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from serve_app.api.parameters import TranscriptionParameters
from serve_app.api.responses import verbose_json
from serve_app.batch.fingerprint import OUTPUT_VERSION
from serve_app.batch.records import FinishedRecording, StageTimes
from serve_app.batch.uris import plain_uri
from serve_app.core.records import STAGES
from serve_app.settings.batch import TextFormat
from serve_app.transcript.cer import character_error_rate, spoken_characters
from serve_app.transcript.subtitles import SubtitleOptions, to_srt, to_vtt
from serve_app.transcript.transcript import Transcript

HEAD_BYTES = 16_384
"""Length of the beginning of a result that holds its summary."""

_ROWS = ("segments", "words", "utterances")


@dataclass(frozen=True, slots=True)
class ResultSummary:
    """The part of a result that the report and a resumed run need.

    Attributes:
        id: of the item.
        fingerprint: of content and configuration.
        audio_s: length of the recording.
        speech_s: of it, the recognized speech.
        partial: spans could not be recognized.
        times: seconds by stage.
        num_characters: recognized letters and digits.
        num_edits: against the reference; None without one.
        num_reference_characters: of the reference; None without one.
    """

    id: str
    fingerprint: str
    audio_s: float
    speech_s: float
    partial: bool
    times: StageTimes
    num_characters: int
    num_edits: int | None = None
    num_reference_characters: int | None = None

    @property
    def cer(self) -> float | None:
        """Character error rate as in `transcript.cer`; None without a reference."""
        if self.num_edits is None or self.num_reference_characters is None:
            return None
        if self.num_reference_characters == 0:
            return 1.0 if self.num_edits else 0.0
        return self.num_edits / self.num_reference_characters


def summary_of(finished: FinishedRecording) -> ResultSummary:
    transcript = finished.transcript
    reference = finished.item.reference
    num_edits = num_reference = None
    if reference is not None:
        num_reference = len(spoken_characters(reference))
        rate = character_error_rate(reference, transcript.text)
        num_edits = round(rate * max(num_reference, 1))
    return ResultSummary(
        finished.item.id,
        finished.fingerprint,
        round(finished.audio_s, 3),
        round(sum(span.end_ms - span.start_ms for span in transcript.utterances) / 1000, 3),
        transcript.partial,
        StageTimes(*(round(seconds, 4) for seconds in _times(finished.times))),
        len(spoken_characters(transcript.text)),
        num_edits,
        num_reference,
    )


def render_result_json(finished: FinishedRecording) -> bytes:
    """Returns the JSON: the summary first, then a line per segment and word."""
    summary = summary_of(finished)
    head = {"format_version": OUTPUT_VERSION, **asdict(summary), "cer": summary.cer}
    body: Mapping[str, object] = verbose_json(finished.transcript, _parameters(finished))
    words = list(finished.transcript.words())
    confidence = sum(word.confidence for word in words) / len(words) if words else None
    rest = {
        "uri": plain_uri(finished.item.uri),
        "models": {stage: asdict(pack) for stage, pack in finished.models.items()},
        "stages": [stage for stage in STAGES if stage in finished.models],
        "language": finished.item.language,
        "confidence": None if confidence is None else round(confidence, 4),
        "reference": finished.item.reference,
        "metadata": dict(finished.item.metadata),
        **{name: body[name] for name in ("text", "duration")},
        "num_channels": finished.transcript.num_channels,
        "failed_ranges": body.get("failed_ranges", []),
        "warnings": body.get("warnings", []),
        **{name: body[name] for name in _ROWS},
    }
    lines = ",\n".join(_line(name, value) for name, value in {**head, **rest}.items())
    return f"{{\n{lines}\n}}\n".encode()


def render_text(
    transcript: Transcript, text_format: TextFormat, subtitles: SubtitleOptions
) -> bytes:
    sentences, duration_ms = transcript.sentences, transcript.duration_ms
    match text_format:
        case "srt":
            return to_srt(sentences, subtitles, duration_ms).encode()
        case "vtt":
            return to_vtt(sentences, subtitles, duration_ms).encode()
        case "txt":
            return f"{transcript.text}\n".encode()


def parse_head(head: bytes) -> ResultSummary | None:
    """Returns the summary from the beginning of a result; None if it is no valid result."""
    known = dict(_head_fields(head))
    try:
        if known["format_version"] != OUTPUT_VERSION:
            return None
        return summary_from(known)
    except (KeyError, TypeError, ValueError):
        return None


def summary_from(fields: Mapping[str, object]) -> ResultSummary:
    """Parses the fields of `asdict(summary)`; further fields are ignored.

    Raises:
        KeyError: a field is missing.
        TypeError: a field has a wrong type.
        ValueError: a field has a wrong value.
    """
    times = fields["times"]
    if not isinstance(times, dict):
        raise TypeError("times")
    return ResultSummary(
        id=str(fields["id"]),
        fingerprint=str(fields["fingerprint"]),
        audio_s=float(str(fields["audio_s"])),
        speech_s=float(str(fields["speech_s"])),
        partial=bool(fields["partial"]),
        times=StageTimes(**{str(name): float(value) for name, value in times.items()}),
        num_characters=int(str(fields["num_characters"])),
        num_edits=_optional_int(fields["num_edits"]),
        num_reference_characters=_optional_int(fields["num_reference_characters"]),
    )


def _head_fields(head: bytes) -> Iterator[tuple[str, object]]:
    for line in head.split(b"\n")[1:]:
        try:
            yield from json.loads(b"{" + line.removesuffix(b",") + b"}").items()
        except ValueError:
            return


def _line(name: str, value: object) -> str:
    key = json.dumps(name)
    if isinstance(value, list) and name in _ROWS and value:
        rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in value)
        return f"{key}: [\n{rows}\n]"
    return f"{key}: {json.dumps(value, ensure_ascii=False)}"


def _parameters(finished: FinishedRecording) -> TranscriptionParameters:
    pack = finished.models.get("asr")
    return TranscriptionParameters(
        model=pack.name if pack else "",
        language=finished.item.language or "",
        stages=frozenset(stage for stage in STAGES if stage in finished.models),
        response_format="verbose_json",
        granularities=frozenset({"segment", "word"}),
        include_utterances=True,
    )


def _times(times: StageTimes) -> tuple[float, float, float, float]:
    return times.segment_s, times.recognize_s, times.punctuate_s, times.wall_s


def _optional_int(value: object) -> int | None:
    return None if value is None else int(str(value))
