"""The bodies of the API's answers, as types that the OpenAPI document is made from.

Source of the fields that are not ours: OpenAI's API reference, "Create transcription" (the
objects of `json` and `verbose_json`, and the streamed events), "Models" and "Error codes".
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypeAlias

from pydantic import Field

# pydantic reads no others before Python 3.12.
from typing_extensions import TypedDict

from serve_app.core.records import UtteranceStatus

Seconds: TypeAlias = Annotated[float, Field(description="Seconds from the recording's start.")]


class TokenLogprob(TypedDict):
    """One token of `logprobs`: its text, its UTF-8 bytes and its log-probability."""

    token: str
    logprob: float
    bytes: list[int]


class DurationUsage(TypedDict):
    """What a request used, by the length of its recording."""

    type: Literal["duration"]
    seconds: Annotated[int, Field(description="Length of the recording, rounded up.")]


class InputTokenDetails(TypedDict):
    """What `input_tokens` are made up of."""

    audio_tokens: int
    text_tokens: int


class TokenUsage(TypedDict):
    """What a streamed request used: OpenAI's clients know no other usage in a stream."""

    type: Literal["tokens"]
    input_tokens: Annotated[int, Field(description="Tenths of a second of audio, rounded up.")]
    input_token_details: InputTokenDetails
    output_tokens: Annotated[
        int, Field(description="Characters of Chinese and words of other languages in the text.")
    ]
    total_tokens: int


class FailedSpan(TypedDict):
    """A span of the recording for which there is no text because of an error."""

    start: Seconds
    end: Seconds
    error: str
    reason: Literal["recognition_failed", "damaged"]


class TranscriptionLanguage(TypedDict):
    """A language of the recording."""

    code: Annotated[str, Field(description="As in `language`: zh, en, yue.")]


Languages: TypeAlias = Annotated[
    list[TranscriptionLanguage],
    Field(
        description="The language that was asked for or is the service's own; where it is "
        "guessed, those that were heard, the one with most speech first. Empty without words."
    ),
]


class Transcription(TypedDict):
    """The answer of `response_format=json`."""

    text: str
    languages: Languages
    usage: DurationUsage
    logprobs: NotRequired[list[TokenLogprob]]
    partial: NotRequired[
        Annotated[bool, Field(description="True if text is missing; left out if none is.")]
    ]
    failed_ranges: NotRequired[list[FailedSpan]]


class Segment(TypedDict):
    """A sentence; `tokens` and `seek` are Whisper's, and always empty and 0."""

    id: int
    seek: int
    start: Seconds
    end: Seconds
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: Annotated[float, Field(description="Mean logarithm of the confidences.")]
    compression_ratio: float
    no_speech_prob: Annotated[float, Field(description="Always 0: the VAD removes the rest.")]
    model: NotRequired[Annotated[str, Field(description="Which of several models heard it.")]]


class Word(TypedDict):
    """A word, or a character of Chinese."""

    word: str
    start: Seconds
    end: Seconds
    confidence: Annotated[float, Field(ge=0, le=1)]
    model: NotRequired[Annotated[str, Field(description="Which of several models heard it.")]]


class SpokenSpan(TypedDict):
    """Where the VAD heard speech."""

    start: Seconds
    end: Seconds
    status: UtteranceStatus
    language: NotRequired[str]


class VerboseTranscription(Transcription):
    """The answer of `response_format=verbose_json`."""

    task: Literal["transcribe"]
    language: str
    duration: Annotated[float, Field(description="Length of the recording in seconds.")]
    segments: NotRequired[list[Segment]]
    words: NotRequired[list[Word]]
    utterances: NotRequired[list[SpokenSpan]]
    warnings: NotRequired[
        Annotated[list[str], Field(description="Fields that were not, or not fully, heeded.")]
    ]


class TextDelta(TypedDict):
    """A sentence, as soon as it is there; the deltas in order are the text."""

    type: Literal["transcript.text.delta"]
    delta: str
    start: Seconds
    end: Seconds
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
        Annotated[bool, Field(description="True if text is missing; left out if none is.")]
    ]
    failed_ranges: NotRequired[list[FailedSpan]]


ErrorType: TypeAlias = Literal["invalid_request_error", "rate_limit_error", "server_error"]


class ErrorDetail(TypedDict):
    """What went wrong."""

    message: str
    type: ErrorType
    param: Annotated[str | None, Field(description="The field that is wrong, if it is one.")]
    code: Annotated[str, Field(description="Stable; programs may rely on it.")]


class ErrorAnswer(TypedDict):
    """The body of every answer that is not a success."""

    error: ErrorDetail


class StreamError(ErrorAnswer):
    """The last event of a stream that failed."""

    type: Literal["error"]


StreamEvent: TypeAlias = Annotated[TextDelta | TextDone | StreamError, Field(discriminator="type")]
"""What a line `data:` of an event stream holds."""


class ModelDescription(TypedDict):
    """A name for the field `model`."""

    id: str
    object: Literal["model"]
    created: Annotated[int, Field(description="Unix time since which it is served here.")]
    owned_by: str
    root: Annotated[str, Field(description="The pack that the name stands for.")]
    demo: Annotated[bool, Field(description="Whether it knows the built-in recordings only.")]
    warning: NotRequired[Annotated[str, Field(description="What a demo model is not for.")]]
    hotwords: NotRequired[Annotated[bool, Field(description="Whether it takes hotwords.")]]


class ModelList(TypedDict):
    """What is served; the first one is the default."""

    object: Literal["list"]
    data: list[ModelDescription]


class Health(TypedDict):
    """The process answers."""

    status: Literal["ok"]


class StageDescription(TypedDict):
    """What a stage runs on, and with which pack."""

    device: str
    pack: str
    checksum: str


class Readiness(TypedDict):
    """Every stage has warmed up."""

    status: Literal["ready"]
    stages: dict[str, StageDescription]
