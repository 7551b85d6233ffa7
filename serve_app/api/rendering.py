"""A transcript in each of the formats of OpenAI's transcription API.

Source: OpenAI's API reference, "Create transcription" (response bodies and
streamed events). Times there are seconds as floats.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import Response

from serve_app.api.headers import PARTIAL_HEADER, list_header
from serve_app.api.parameters import ResponseFormat, TranscriptionParameters
from serve_app.core.subtitles import to_srt, to_vtt
from serve_app.core.transcripts import (
    FailedRange,
    Sentence,
    Transcript,
    TranscriptEvent,
    damaged_ranges,
)
from serve_app.core.words import needs_space

UNDETERMINED = "und"
"""The language of a recording without words where it is guessed: the schema wants a string.

Source: ISO 639-2, code for undetermined languages.
"""

_MEDIA_TYPES: dict[ResponseFormat, str] = {
    "json": "application/json",
    "verbose_json": "application/json",
    "text": "text/plain",
    "srt": "text/plain",
    "vtt": "text/vtt",
}


def render(transcript: Transcript, parameters: TranscriptionParameters) -> Response:
    """Returns the response for a complete transcript.

    A transcript with failed spans is marked: by the header X-Paraserve-Partial,
    which lists them in seconds, as many as have room in a header and the number of
    the rest, and in JSON formats by `partial` and `failed_ranges`, which has them all.
    """
    response = Response(
        render_body(transcript, parameters), media_type=_MEDIA_TYPES[parameters.response_format]
    )
    if transcript.partial:
        response.headers[PARTIAL_HEADER] = list_header(
            f"{_seconds(failed.start_ms)}-{_seconds(failed.end_ms)}"
            for failed in transcript.failures
        )
    return response


def render_body(transcript: Transcript, parameters: TranscriptionParameters) -> str:
    """Returns the transcript in the format that the parameters ask for."""
    match parameters.response_format:
        case "json":
            return json.dumps(_json(transcript), ensure_ascii=False)
        case "verbose_json":
            return json.dumps(verbose_json(transcript, parameters), ensure_ascii=False)
        case "text":
            return transcript.text + "\n"
        case "srt":
            return to_srt(transcript.sentences, parameters.subtitles, transcript.duration_ms)
        case "vtt":
            return to_vtt(transcript.sentences, parameters.subtitles, transcript.duration_ms)


async def sse_events(events: AsyncIterator[TranscriptEvent]) -> AsyncIterator[str]:
    """Yields the transcript as server-sent events.

    The deltas, concatenated, are the text of the closing `transcript.text.done`.
    """
    text = ""
    failures: list[FailedRange] = []
    duration_ms = 0
    async for event in events:
        if isinstance(event, Sentence):
            delta = event.text
            if needs_space(text, delta):
                delta = f" {delta}"
            text += delta
            yield _sse(
                {
                    "type": "transcript.text.delta",
                    "delta": delta,
                    "start": _seconds(event.start_ms),
                    "end": _seconds(event.end_ms),
                }
            )
        elif isinstance(event, FailedRange):
            failures.append(event)
        else:
            duration_ms = event.duration_ms
            failures += damaged_ranges(event)
            failures.sort(key=lambda failed: failed.start_ms)
    done: dict[str, Any] = {
        "type": "transcript.text.done",
        "text": text,
        "usage": _usage(duration_ms),
    }
    if failures:
        done |= _partial(failures)
    yield _sse(done)


def sse_error(body: dict[str, Any]) -> str:
    """Returns the event that tells of an error after the stream has begun."""
    return _sse({"type": "error", **body})


def _sse(payload: dict[str, Any]) -> str:
    return f"data: {json.dumps(payload, ensure_ascii=False)}\n\n"


def _json(transcript: Transcript) -> dict[str, Any]:
    body: dict[str, Any] = {"text": transcript.text, "usage": _usage(transcript.duration_ms)}
    if transcript.partial:
        body |= _partial(transcript.failures)
    return body


def verbose_json(transcript: Transcript, parameters: TranscriptionParameters) -> dict[str, Any]:
    """Returns the body of `verbose_json`; times in seconds.

    Its `language` is what was asked for or what the deployment is set to; where that guesses,
    what most of this recording was heard as. `warnings` is there only if there are any.
    """
    body: dict[str, Any] = {
        "task": "transcribe",
        "language": parameters.language or transcript.language or UNDETERMINED,
        "duration": _seconds(transcript.duration_ms),
        **_json(transcript),
    }
    if transcript.notices:
        body["warnings"] = list(transcript.notices)
    if "segment" in parameters.granularities:
        body["segments"] = [
            _segment(number, sentence) for number, sentence in enumerate(transcript.sentences)
        ]
    if "word" in parameters.granularities:
        body["words"] = [
            {
                "word": token.text,
                "start": _seconds(token.start_ms),
                "end": _seconds(token.end_ms),
                "confidence": round(token.confidence, 4),
                **({} if token.model is None else {"model": token.model}),
            }
            for token in transcript.words()
        ]
    if parameters.include_utterances:
        body["utterances"] = [
            {
                "start": _seconds(span.start_ms),
                "end": _seconds(span.end_ms),
                "status": span.status,
                **({} if span.language is None else {"language": span.language}),
            }
            for span in transcript.utterances
        ]
    return body


def _segment(number: int, sentence: Sentence) -> dict[str, Any]:
    """A sentence as OpenAI's segment object.

    `tokens` and `seek` are Whisper's and have no counterpart here; the VAD has
    removed what is not speech, so `no_speech_prob` is 0. `model` says which of several
    models spoke; where a sentence has words of two, their names are joined by "+".
    """
    encoded = sentence.text.encode()
    models = dict.fromkeys(marked.token.model for marked in sentence.tokens)
    named = "+".join(model for model in models if model is not None)
    return {
        "id": number,
        "seek": 0,
        "start": _seconds(sentence.start_ms),
        "end": _seconds(sentence.end_ms),
        "text": sentence.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(_mean_log_confidence(sentence), 4),
        "compression_ratio": round(len(encoded) / len(zlib.compress(encoded)), 4),
        "no_speech_prob": 0.0,
        **({"model": named} if named else {}),
    }


def _mean_log_confidence(sentence: Sentence) -> float:
    logs = [math.log(max(marked.token.confidence, 1e-10)) for marked in sentence.tokens]
    return sum(logs) / len(logs)


def _partial(failures: tuple[FailedRange, ...] | list[FailedRange]) -> dict[str, Any]:
    return {
        "partial": True,
        "failed_ranges": [
            {
                "start": _seconds(failed.start_ms),
                "end": _seconds(failed.end_ms),
                "error": failed.error,
                "reason": failed.reason,
            }
            for failed in failures
        ],
    }


def _usage(duration_ms: int) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(duration_ms / 1000)}


def _seconds(time_ms: int) -> float:
    return round(time_ms / 1000, 3)
