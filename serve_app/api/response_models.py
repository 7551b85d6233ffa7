"""The bodies of the API's responses, as types from which the OpenAPI document is generated.

Source of the standard fields: OpenAI's API reference, "Create transcription" (the
objects of `json` and `verbose_json`, and the streamed events), "Models" and "Error codes".
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypeAlias

from pydantic import Field

# pydantic supports typing.TypedDict only from Python 3.12.
from typing_extensions import TypedDict

from serve_app.core.records import UtteranceStatus
from serve_app.jobs.job_json import JobJson
from serve_app.jobs.records import UsageKind

Seconds: TypeAlias = Annotated[float, Field(description="Seconds from the recording's start.")]


Channel: TypeAlias = Annotated[
    int, Field(ge=0, description="The channel, from 0, with `channels=separate`.")
]


class TokenLogprob(TypedDict):
    """One token of `logprobs`: its text, its UTF-8 bytes and its log-probability."""

    token: str
    logprob: float
    bytes: list[int]


class DurationUsage(TypedDict):
    """Usage of a request, by the length of its recording."""

    type: Literal["duration"]
    seconds: Annotated[
        int,
        Field(
            description="Length of the recording in s, times the channels recognized, rounded up."
        ),
    ]


class InputTokenDetails(TypedDict):
    """Breakdown of `input_tokens`."""

    audio_tokens: int
    text_tokens: int


class TokenUsage(TypedDict):
    """Usage of a streamed request; in streams, OpenAI's clients accept only this type."""

    type: Literal["tokens"]
    input_tokens: Annotated[
        int, Field(description="Tenths of a second of audio, rounded up; as in `DurationUsage`.")
    ]
    input_token_details: InputTokenDetails
    output_tokens: Annotated[
        int, Field(description="Characters of Chinese and words of other languages in the text.")
    ]
    total_tokens: int


class FailedSpan(TypedDict):
    """A span of the recording that has no text because of an error."""

    start: Seconds
    end: Seconds
    error: str
    reason: Literal["recognition_failed", "damaged"]
    channel: NotRequired[
        Annotated[int, Field(ge=0, description="As in `Segment`; without it, all channels.")]
    ]


class TranscriptionLanguage(TypedDict):
    """A language of the recording."""

    code: Annotated[str, Field(description="As in `language`: zh, en, yue.")]


Languages: TypeAlias = Annotated[
    list[TranscriptionLanguage],
    Field(
        description="The requested language or the service's default; if the language is "
        "detected, all that were found, the one with the most speech first. Empty without words."
    ),
]


class Transcription(TypedDict):
    """The response for `response_format=json`."""

    text: str
    languages: Languages
    usage: DurationUsage
    logprobs: NotRequired[list[TokenLogprob]]
    partial: NotRequired[
        Annotated[bool, Field(description="True if text is missing; otherwise omitted.")]
    ]
    failed_ranges: NotRequired[list[FailedSpan]]


Speaker: TypeAlias = Annotated[
    str,
    Field(
        description="Label of who speaks: A, B and so on in the order of their first words, or the "
        "name of a known speaker."
    ),
]


class Segment(TypedDict):
    """A sentence. `tokens` and `seek` exist for Whisper and are always empty and 0."""

    id: int
    seek: int
    start: Seconds
    end: Seconds
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: Annotated[float, Field(description="Mean logarithm of the confidences.")]
    compression_ratio: float
    no_speech_prob: Annotated[float, Field(description="Always 0: the VAD removes non-speech.")]
    model: NotRequired[
        Annotated[str, Field(description="The model that recognized it, where several run.")]
    ]
    speaker: NotRequired[Speaker]
    channel: NotRequired[Channel]


class Word(TypedDict):
    """A word, or a character of Chinese."""

    word: str
    start: Seconds
    end: Seconds
    confidence: Annotated[float, Field(ge=0, le=1)]
    model: NotRequired[
        Annotated[str, Field(description="The model that recognized it, where several run.")]
    ]
    speaker: NotRequired[Speaker]
    channel: NotRequired[Channel]


class SpokenSpan(TypedDict):
    """A span in which the VAD found speech."""

    start: Seconds
    end: Seconds
    status: UtteranceStatus
    language: NotRequired[str]
    channel: NotRequired[Channel]


class VerboseTranscription(Transcription):
    """The response for `response_format=verbose_json`."""

    task: Literal["transcribe"]
    language: str
    duration: Annotated[float, Field(description="Length of the recording in seconds.")]
    segments: NotRequired[list[Segment]]
    words: NotRequired[list[Word]]
    utterances: NotRequired[list[SpokenSpan]]
    warnings: NotRequired[
        Annotated[list[str], Field(description="Fields that had no effect, or only a partial one.")]
    ]


class DiarizedSegment(TypedDict):
    """A sentence of one speaker. In a stream with `diarized_json` also an event, near the end."""

    type: Literal["transcript.text.segment"]
    id: str
    start: Seconds
    end: Seconds
    text: str
    speaker: Annotated[
        str, Field(description="As in `Segment`; `unknown` where the voice could not be compared.")
    ]
    channel: NotRequired[Channel]


class DiarizedTranscription(TypedDict):
    """The response for `response_format=diarized_json`."""

    task: Literal["transcribe"]
    duration: Annotated[float, Field(description="Length of the recording in seconds.")]
    text: str
    segments: list[DiarizedSegment]
    usage: DurationUsage
    languages: Languages
    partial: NotRequired[
        Annotated[bool, Field(description="True if text is missing; otherwise omitted.")]
    ]
    failed_ranges: NotRequired[list[FailedSpan]]
    warnings: NotRequired[
        Annotated[list[str], Field(description="Fields that had no effect, or only a partial one.")]
    ]


class TextDelta(TypedDict):
    """A sentence as soon as it is ready; the concatenated deltas are the text."""

    type: Literal["transcript.text.delta"]
    delta: str
    start: Seconds
    end: Seconds
    channel: NotRequired[Channel]
    words: NotRequired[
        Annotated[list[Word], Field(description="With timestamp_granularities word.")]
    ]
    logprobs: NotRequired[list[TokenLogprob]]


class TextDone(TypedDict):
    """The last event of a stream: the whole text."""

    type: Literal["transcript.text.done"]
    text: str
    languages: Languages
    duration: Annotated[float, Field(description="Length of the recording in seconds.")]
    usage: TokenUsage
    logprobs: NotRequired[list[TokenLogprob]]
    partial: NotRequired[
        Annotated[bool, Field(description="True if text is missing; otherwise omitted.")]
    ]
    failed_ranges: NotRequired[list[FailedSpan]]


ErrorType: TypeAlias = Literal["invalid_request_error", "rate_limit_error", "server_error"]


class ErrorDetail(TypedDict):
    """What went wrong."""

    message: str
    type: ErrorType
    param: Annotated[str | None, Field(description="The field at fault, if there is one.")]
    code: Annotated[str, Field(description="Stable error code for programs.")]


class ErrorAnswer(TypedDict):
    """The body of every error response."""

    error: ErrorDetail


class StreamError(ErrorAnswer):
    """The last event of a stream that failed."""

    type: Literal["error"]


StreamEvent: TypeAlias = Annotated[
    TextDelta | DiarizedSegment | TextDone | StreamError, Field(discriminator="type")
]
"""The content of a `data:` line of an event stream."""


class ModelDescription(TypedDict):
    """A value for the field `model`."""

    id: str
    object: Literal["model"]
    created: Annotated[int, Field(description="Unix time at which this process began to serve it.")]
    owned_by: str
    root: Annotated[str, Field(description="The pack that the name stands for.")]
    demo: Annotated[
        bool,
        Field(description="Whether it is a demo model, which recognizes only the built-in voices."),
    ]
    warning: NotRequired[Annotated[str, Field(description="Limits of a demo model.")]]
    hotwords: NotRequired[Annotated[bool, Field(description="Whether it supports hotwords.")]]
    speaker_labels: Annotated[bool, Field(description="Whether the service labels who speaks.")]
    languages: Annotated[
        list[str],
        Field(
            description="Values for the field `language`; `auto` is among them if the language "
            "can be detected."
        ),
    ]


class ModelList(TypedDict):
    """The served models; the first one is the default."""

    object: Literal["list"]
    data: list[ModelDescription]


class Health(TypedDict):
    """The process is running."""

    status: Literal["ok"]


class StageDescription(TypedDict):
    """Device and model pack of a stage, and the precision of its matrix products."""

    device: str
    pack: str
    checksum: str
    dtype: str | None


class Readiness(TypedDict):
    """All stages are ready."""

    status: Literal["ready"]
    stages: dict[str, StageDescription]


class UsageOfKind(TypedDict):
    """What a key has used in one way."""

    kind: Annotated[
        UsageKind,
        Field(
            description="`request`, `job`, `batch` (jobs of `paraserve batch` on the service) or "
            "`live`."
        ),
    ]
    audio_s: Annotated[float, Field(description="Audio in s, times the channels recognized.")]
    num_requests: int


class Usage(TypedDict):
    """What the caller's key has used in a calendar month, in UTC."""

    object: Literal["usage"]
    month: Annotated[str, Field(description="As 2026-11.")]
    key: Annotated[str, Field(description="Name of the API key.")]
    audio_s: Annotated[float, Field(description="Audio in s of all kinds.")]
    num_requests: int
    data: list[UsageOfKind]
    max_audio_s: Annotated[
        float | None, Field(description="Quota of audio in s of a month; null without one.")
    ]
    until: Annotated[str, Field(description="The day on which the next month begins.")]


class JobList(TypedDict):
    """Jobs of the caller's key, the newest first."""

    object: Literal["list"]
    data: list[JobJson]
    first_id: str | None
    last_id: Annotated[
        str | None, Field(description="The value of `after` for the next page; null if empty.")
    ]
    has_more: Annotated[bool, Field(description="Whether older ones follow.")]


class JobRemoval(TypedDict):
    """The job is gone, with its recording and its text."""

    id: str
    object: Literal["transcription.job"]
    deleted: Literal[True]


class Upload(TypedDict):
    """A recording that arrives in parts."""

    id: str
    object: Literal["upload"]
    length_bytes: int
    offset_bytes: Annotated[int, Field(description="Bytes that have arrived.")]
    expires_at: Annotated[
        int, Field(description="Unix time at which it is removed unless a job has taken it.")
    ]
    metadata: dict[str, str]
