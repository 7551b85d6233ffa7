"""A transcript in each of the formats of OpenAI's transcription API.

Source: OpenAI's API reference, "Create transcription" (response bodies and
streamed events). Times there are seconds as floats.
"""

from __future__ import annotations

import asyncio
import json
import math
import zlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing

from fastapi.responses import Response

from serve_app.api.headers import PARTIAL_HEADER, list_header
from serve_app.api.parameters import ResponseFormat, TranscriptionParameters
from serve_app.api.response_models import (
    DiarizedSegment,
    DiarizedTranscription,
    DurationUsage,
    ErrorAnswer,
    FailedSpan,
    Segment,
    SpokenSpan,
    StreamEvent,
    TextDelta,
    TextDone,
    TokenLogprob,
    TokenUsage,
    Transcription,
    TranscriptionLanguage,
    VerboseTranscription,
    Word,
)
from serve_app.core.errors import RecognitionFailed, SpeakersUnavailable
from serve_app.core.records import RecordingEnd, Token, UtteranceSummary
from serve_app.core.words import needs_space
from serve_app.speakers.transcripts import labelled, labelled_sentences
from serve_app.transcript.subtitles import to_srt, to_vtt
from serve_app.transcript.transcript import (
    FailedRange,
    Sentence,
    Transcript,
    TranscriptEvent,
    damaged_ranges,
    languages_of,
    separator,
)

UNDETERMINED = "und"
"""The language of a recording without words where it is guessed: the schema wants a string.

Source: ISO 639-2, code for undetermined languages.
"""

_UNKNOWN_SPEAKER = "unknown"
_AUDIO_TOKEN_MS = 100
_MIN_PROBABILITY = 1e-10

_MEDIA_TYPES: dict[ResponseFormat, str] = {
    "json": "application/json",
    "verbose_json": "application/json",
    "diarized_json": "application/json",
    "text": "text/plain",
    "srt": "text/plain",
    "vtt": "text/vtt",
}


def check_transcript(transcript: Transcript, response_format: ResponseFormat) -> None:
    """Checks that a transcript has what a caller asked for.

    Raises:
        RecognitionFailed: nothing could be recognized.
        SpeakersUnavailable: the format lists speakers, and there are no labels.
    """
    unrecognized = [one for one in transcript.failures if one.reason == "recognition_failed"]
    if unrecognized and not transcript.sentences:
        raise RecognitionFailed(unrecognized[0].error)
    if response_format == "diarized_json" and transcript.diarization is None:
        raise SpeakersUnavailable


def render(transcript: Transcript, parameters: TranscriptionParameters) -> Response:
    """Returns the response for a complete transcript.

    A transcript with failed spans is marked: by the header X-Paraserve-Partial,
    which lists them in seconds, as many as have room in a header and the number of
    the rest, and in JSON formats by `partial` and `failed_ranges`, which has them all. A span
    of one of several channels names it.
    """
    response = Response(
        render_body(transcript, parameters), media_type=_MEDIA_TYPES[parameters.response_format]
    )
    if transcript.partial:
        response.headers[PARTIAL_HEADER] = list_header(
            _span_in_header(failed) for failed in transcript.failures
        )
    return response


def _span_in_header(failed: FailedRange) -> str:
    span = f"{_seconds(failed.start_ms)}-{_seconds(failed.end_ms)}"
    return span if failed.channel is None else f"{span};channel={failed.channel}"


def render_body(transcript: Transcript, parameters: TranscriptionParameters) -> str:
    """Returns the transcript in the requested format."""
    transcript = labelled(transcript)
    match parameters.response_format:
        case "json":
            return json.dumps(_json(transcript, parameters), ensure_ascii=False)
        case "verbose_json":
            return json.dumps(verbose_json(transcript, parameters), ensure_ascii=False)
        case "diarized_json":
            return json.dumps(_diarized_json(transcript, parameters), ensure_ascii=False)
        case "text":
            return transcript.text + "\n"
        case "srt":
            return to_srt(transcript.sentences, parameters.subtitles, transcript.duration_ms)
        case "vtt":
            return to_vtt(transcript.sentences, parameters.subtitles, transcript.duration_ms)


async def sse_events(
    events: AsyncGenerator[TranscriptEvent],
    *,
    language: str | None = None,
    with_logprobs: bool = False,
    with_words: bool = False,
    with_segments: bool = False,
) -> AsyncGenerator[str]:
    """Yields the transcript as server-sent events; closes its source.

    The deltas, concatenated, are the text of the closing `transcript.text.done`.

    Args:
        events: the transcript.
        language: spoken language; None if it was guessed.
        with_logprobs: list the log-probability of each token.
        with_words: list the words of each sentence with times.
        with_segments: list the labelled sentences before the end; speakers are known only then.

    Raises:
        SpeakersUnavailable: segments are wanted, and there are no labels.
    """
    text = ""
    before: Sentence | None = None
    num_tokens = 0
    logprobs: list[TokenLogprob] = []
    failures: list[FailedRange] = []
    sentences: list[Sentence] = []
    end = RecordingEnd(0)
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Sentence):
                delta = separator(text, before, event) + event.text
                told: TextDelta = {
                    "type": "transcript.text.delta",
                    "delta": delta,
                    "start": _seconds(event.start_ms),
                    "end": _seconds(event.end_ms),
                }
                if event.channel is not None:
                    told["channel"] = event.channel
                if with_words:
                    told["words"] = words_of([event])
                if with_logprobs:
                    told["logprobs"] = token_logprobs([event], text, before)
                    logprobs += told["logprobs"]
                text += delta
                before = event
                if with_segments:
                    sentences.append(event)
                num_tokens += len(event.tokens)
                yield _sse(told)
            elif isinstance(event, FailedRange):
                failures.append(event)
            else:
                end = event
                failures += damaged_ranges(event)
                failures.sort(key=lambda failed: failed.start_ms)
    if with_segments:
        for segment in await asyncio.to_thread(_segments_of, sentences, end):
            yield _sse(segment)
    done: TextDone = {
        "type": "transcript.text.done",
        "text": text,
        "languages": _languages(language, end.utterances, has_words=bool(num_tokens)),
        "duration": _seconds(end.duration_ms),
        "usage": _token_usage(end.duration_ms * end.num_channels, num_tokens),
    }
    if with_logprobs:
        done["logprobs"] = logprobs
    if failures:
        done["partial"] = True
        done["failed_ranges"] = _failed_spans(failures)
    yield _sse(done)


def _segments_of(sentences: Sequence[Sentence], end: RecordingEnd) -> list[DiarizedSegment]:
    if end.diarization is None:
        raise SpeakersUnavailable
    return _diarized_segments(labelled_sentences(sentences, end.diarization))


def sse_error(body: ErrorAnswer) -> str:
    """Returns the error event of a stream that has started."""
    return f"event: error\n{_sse({'type': 'error', 'error': body['error']})}"


def _sse(payload: StreamEvent) -> str:
    return f"data: {json.dumps(payload, ensure_ascii=False)}\n\n"


def _json(transcript: Transcript, parameters: TranscriptionParameters) -> Transcription:
    body: Transcription = {
        "text": transcript.text,
        "languages": _languages_of(transcript, parameters),
        "usage": _duration_usage(transcript),
    }
    if parameters.include_logprobs:
        body["logprobs"] = token_logprobs(transcript.sentences)
    if transcript.partial:
        body["partial"] = True
        body["failed_ranges"] = _failed_spans(transcript.failures)
    return body


def verbose_json(
    transcript: Transcript, parameters: TranscriptionParameters
) -> VerboseTranscription:
    """Returns the body of `verbose_json`; times in seconds.

    Its `language` is what was asked for or what the deployment is set to; where that guesses,
    what most of this recording was heard as. `warnings` is there only if there are any.
    """
    body: VerboseTranscription = {
        "task": "transcribe",
        "language": parameters.language or transcript.language or UNDETERMINED,
        "duration": _seconds(transcript.duration_ms),
        "text": transcript.text,
        "languages": _languages_of(transcript, parameters),
        "usage": _duration_usage(transcript),
    }
    if transcript.partial:
        body["partial"] = True
        body["failed_ranges"] = _failed_spans(transcript.failures)
    if parameters.include_logprobs:
        body["logprobs"] = token_logprobs(transcript.sentences)
    warnings = [*map(str, parameters.warnings), *transcript.notices]
    if warnings:
        body["warnings"] = warnings
    if "segment" in parameters.granularities:
        body["segments"] = [
            _segment(number, sentence) for number, sentence in enumerate(transcript.sentences)
        ]
    if "word" in parameters.granularities:
        body["words"] = words_of(transcript.sentences)
    if parameters.include_utterances:
        body["utterances"] = [_spoken_span(span) for span in transcript.utterances]
    return body


def _diarized_json(
    transcript: Transcript, parameters: TranscriptionParameters
) -> DiarizedTranscription:
    body: DiarizedTranscription = {
        "task": "transcribe",
        "duration": _seconds(transcript.duration_ms),
        "text": transcript.text,
        "segments": _diarized_segments(transcript.sentences),
        "usage": _duration_usage(transcript),
        "languages": _languages_of(transcript, parameters),
    }
    if transcript.partial:
        body["partial"] = True
        body["failed_ranges"] = _failed_spans(transcript.failures)
    warnings = [*map(str, parameters.warnings), *transcript.notices]
    if warnings:
        body["warnings"] = warnings
    return body


def _diarized_segments(sentences: Iterable[Sentence]) -> list[DiarizedSegment]:
    return [_diarized_segment(number, sentence) for number, sentence in enumerate(sentences, 1)]


def _diarized_segment(number: int, sentence: Sentence) -> DiarizedSegment:
    segment: DiarizedSegment = {
        "type": "transcript.text.segment",
        "id": f"seg_{number:03d}",
        "start": _seconds(sentence.start_ms),
        "end": _seconds(sentence.end_ms),
        "text": sentence.text,
        "speaker": _UNKNOWN_SPEAKER if sentence.speaker is None else sentence.speaker,
    }
    if sentence.channel is not None:
        segment["channel"] = sentence.channel
    return segment


def token_logprobs(
    sentences: Iterable[Sentence], text_before: str = "", before: Sentence | None = None
) -> list[TokenLogprob]:
    """Returns one entry per token; their texts, joined, are the text of the sentences.

    A token's text includes the space or line break before it and the punctuation after it. Its
    probability is the confidence of the word alone.

    Args:
        sentences: in order.
        text_before: text that precedes the sentences.
        before: the last sentence of that text; None without one.
    """
    found: list[TokenLogprob] = []
    text = text_before
    for sentence in sentences:
        gap = separator(text, before, sentence)
        before = sentence
        for number, marked in enumerate(sentence.tokens):
            token = marked.token.text + marked.mark
            if number:
                gap = " " if needs_space(text, token) else ""
            token = gap + token
            text += token
            probability = min(1.0, max(marked.token.confidence, _MIN_PROBABILITY))
            found.append(
                {
                    "token": token,
                    "logprob": round(math.log(probability), 6),
                    "bytes": list(token.encode()),
                }
            )
    return found


def _languages_of(
    transcript: Transcript, parameters: TranscriptionParameters
) -> list[TranscriptionLanguage]:
    has_words = bool(transcript.sentences)
    return _languages(parameters.language, transcript.utterances, has_words=has_words)


def _languages(
    language: str | None, utterances: Sequence[UtteranceSummary], *, has_words: bool
) -> list[TranscriptionLanguage]:
    """Returns the given language, or the recognized one if it was guessed."""
    if not has_words:
        return []
    codes = [language] if language else languages_of(utterances)
    return [{"code": code} for code in codes]


def words_of(sentences: Iterable[Sentence]) -> list[Word]:
    return [_word(marked.token, sentence) for sentence in sentences for marked in sentence.tokens]


def _word(token: Token, sentence: Sentence) -> Word:
    word: Word = {
        "word": token.text,
        "start": _seconds(token.start_ms),
        "end": _seconds(token.end_ms),
        "confidence": round(token.confidence, 4),
    }
    if token.model is not None:
        word["model"] = token.model
    if sentence.speaker is not None:
        word["speaker"] = sentence.speaker
    if sentence.channel is not None:
        word["channel"] = sentence.channel
    return word


def _spoken_span(span: UtteranceSummary) -> SpokenSpan:
    spoken: SpokenSpan = {
        "start": _seconds(span.start_ms),
        "end": _seconds(span.end_ms),
        "status": span.status,
    }
    if span.language is not None:
        spoken["language"] = span.language
    if span.channel is not None:
        spoken["channel"] = span.channel
    return spoken


def _segment(number: int, sentence: Sentence) -> Segment:
    """A sentence as OpenAI's segment object.

    `tokens` and `seek` are Whisper's and have no counterpart here; the VAD has
    removed what is not speech, so `no_speech_prob` is 0. `model` says which of several
    models spoke; where a sentence has words of two, their names are joined by "+".
    """
    encoded = sentence.text.encode()
    segment: Segment = {
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
    }
    models = dict.fromkeys(marked.token.model for marked in sentence.tokens)
    if named := "+".join(model for model in models if model is not None):
        segment["model"] = named
    if sentence.speaker is not None:
        segment["speaker"] = sentence.speaker
    if sentence.channel is not None:
        segment["channel"] = sentence.channel
    return segment


def _mean_log_confidence(sentence: Sentence) -> float:
    logs = [math.log(max(marked.token.confidence, _MIN_PROBABILITY)) for marked in sentence.tokens]
    return sum(logs) / len(logs)


def _failed_spans(failures: Sequence[FailedRange]) -> list[FailedSpan]:
    return [_failed_span(failed) for failed in failures]


def _failed_span(failed: FailedRange) -> FailedSpan:
    span: FailedSpan = {
        "start": _seconds(failed.start_ms),
        "end": _seconds(failed.end_ms),
        "error": failed.error,
        "reason": failed.reason,
    }
    if failed.channel is not None:
        span["channel"] = failed.channel
    return span


def _duration_usage(transcript: Transcript) -> DurationUsage:
    recognized_ms = transcript.duration_ms * transcript.num_channels
    return {"type": "duration", "seconds": math.ceil(recognized_ms / 1000)}


def _token_usage(recognized_ms: int, num_output_tokens: int) -> TokenUsage:
    num_audio_tokens = math.ceil(recognized_ms / _AUDIO_TOKEN_MS)
    return {
        "type": "tokens",
        "input_tokens": num_audio_tokens,
        "input_token_details": {"audio_tokens": num_audio_tokens, "text_tokens": 0},
        "output_tokens": num_output_tokens,
        "total_tokens": num_audio_tokens + num_output_tokens,
    }


def _seconds(time_ms: int) -> float:
    return round(time_ms / 1000, 3)
