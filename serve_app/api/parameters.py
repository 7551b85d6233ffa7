"""The form fields of a transcription request, checked.

Field names and values follow OpenAI's `POST /v1/audio/transcriptions`; `stages`, `itn`,
`replacements`, `hotwords`, `keywords`, `subtitle_...` and the value `utterances` of `include[]`
are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from serve_app.api.hinting import parse_hotwords, parse_keywords
from serve_app.api.subtitle_options import SUBTITLE_FIELDS, parse_subtitle_options
from serve_app.core.errors import InvalidParameter, ModelNotFound, StageNotDeployed
from serve_app.core.hints import NO_HINTS, Hints
from serve_app.core.itn import (
    AS_SAID,
    Replacement,
    TextRules,
    merge_replacements,
    parse_replacements,
)
from serve_app.core.languages import language_code
from serve_app.core.stages import STAGES, Stage
from serve_app.core.subtitles import DEFAULT_SUBTITLES, SubtitleOptions
from serve_app.settings.subtitles import SubtitleSettings

ResponseFormat = Literal["json", "text", "srt", "vtt", "verbose_json"]
Granularity = Literal["word", "segment"]

_UTTERANCES = "utterances"
STREAMABLE_FORMATS = ("json", "text")
_LIST_FIELDS = frozenset({"timestamp_granularities[]", "timestamp_granularities", "include[]"})
_FIELDS = _LIST_FIELDS | {
    "model",
    "language",
    "prompt",
    "response_format",
    "temperature",
    "stream",
    "stages",
    "chunking_strategy",
    "itn",
    "hotwords",
    "keywords",
    "replacements",
    *SUBTITLE_FIELDS,
}


@dataclass(frozen=True, slots=True)
class Offer:
    """What this deployment can do for a request.

    Attributes:
        model: name of the pack that is served first.
        model_aliases: further names for it.
        languages: accepted values of `language`.
        stages: stages that are deployed.
        default_language: what is heard where a request names none; None where that is
            guessed.
        other_models: further packs that are served.
        takes_keywords: whether the recogniser has a use for keywords.
        replacements: of the service; those of a request come before them.
        subtitles: how they are divided where a request does not say.
    """

    model: str
    model_aliases: tuple[str, ...]
    languages: tuple[str, ...]
    stages: tuple[Stage, ...]
    default_language: str | None
    other_models: tuple[str, ...] = ()
    takes_keywords: bool = False
    replacements: tuple[Replacement, ...] = ()
    subtitles: SubtitleSettings = field(default_factory=SubtitleSettings)

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the packs that are served."""
        return (self.model, *self.other_models)


@dataclass(frozen=True, slots=True)
class TranscriptionParameters:
    """What the caller asked for.

    `language` is None where it asked for none and the recogniser guesses it.
    """

    model: str
    language: str | None
    stages: frozenset[Stage]
    response_format: ResponseFormat = "json"
    granularities: frozenset[Granularity] = frozenset()
    stream: bool = False
    include_utterances: bool = False
    text_rules: TextRules = AS_SAID
    hints: Hints = NO_HINTS
    subtitles: SubtitleOptions = DEFAULT_SUBTITLES


def parse_parameters(fields: Mapping[str, Sequence[str]], offer: Offer) -> TranscriptionParameters:
    """Checks the form fields against what is offered.

    `prompt`, `temperature` and `chunking_strategy` are accepted for the sake of
    clients that always send them; greedy decoding has no use for them.

    Raises:
        InvalidParameter: a field is unknown, repeated or has a value out of range.
        ModelNotFound: `model` is not served here.
        StageNotDeployed: `stages` names a stage that is not deployed.
    """
    for name, values in fields.items():
        if name not in _FIELDS:
            raise InvalidParameter(
                name, f"is not a known field; known: {', '.join(sorted(_FIELDS))}"
            )
        if name not in _LIST_FIELDS and len(values) > 1:
            raise InvalidParameter(name, "must be given once")
    single = {name: values[0] for name, values in fields.items() if name not in _LIST_FIELDS}
    _check_temperature(single)
    response_format = _response_format(single.get("response_format", "json"))
    stream = _boolean("stream", single.get("stream", "false"))
    if stream and response_format not in STREAMABLE_FORMATS:
        raise InvalidParameter(
            "stream", f"works with response_format {' or '.join(STREAMABLE_FORMATS)} only"
        )
    model = _model(single.get("model"), offer)
    language = _language(single.get("language"), offer)
    return TranscriptionParameters(
        model=model,
        language=language or offer.default_language,
        stages=_stages(single.get("stages"), offer),
        response_format=response_format,
        granularities=_granularities(fields, response_format),
        stream=stream,
        include_utterances=_includes_utterances(fields, response_format),
        text_rules=_text_rules(single, offer),
        hints=_hints(single, model, language, offer),
        subtitles=parse_subtitle_options(single, offer.subtitles),
    )


def _check_temperature(single: Mapping[str, str]) -> None:
    if "temperature" in single:
        try:
            temperature = float(single["temperature"])
        except ValueError:
            raise InvalidParameter("temperature", "must be a number from 0 to 1") from None
        if not 0 <= temperature <= 1:
            raise InvalidParameter("temperature", "must be a number from 0 to 1")


def _model(model: str | None, offer: Offer) -> str:
    if not model:
        raise InvalidParameter("model", f"is required; served here: {', '.join(offer.models)}")
    if model in offer.models:
        return model
    if model in offer.model_aliases:
        return offer.model
    raise ModelNotFound(model, ", ".join(offer.models))


def _hints(single: Mapping[str, str], model: str, language: str | None, offer: Offer) -> Hints:
    keywords = parse_keywords(single.get("keywords", ""))
    if keywords and not offer.takes_keywords:
        raise InvalidParameter(
            "keywords", "are for recognizer.engine hybrid alone; this deployment has no draft"
        )
    return Hints(
        model=None if model == offer.model else model,
        hotwords=parse_hotwords(single.get("hotwords", "")),
        keywords=keywords,
        language=language,
    )


def _text_rules(single: Mapping[str, str], offer: Offer) -> TextRules:
    try:
        replacements = parse_replacements(single.get("replacements", ""))
    except ValueError as error:
        raise InvalidParameter("replacements", str(error)) from None
    return TextRules(
        _boolean("itn", single.get("itn", "false")),
        merge_replacements(replacements, offer.replacements),
    )


def _language(language: str | None, offer: Offer) -> str | None:
    """Returns the code of the language that is asked for, None if none is."""
    if not language:
        return None
    code = language_code(language)
    if code not in offer.languages:
        raise InvalidParameter(
            "language",
            f"{language!r} is not among those of this model: {', '.join(offer.languages)}",
        )
    return code


def _stages(value: str | None, offer: Offer) -> frozenset[Stage]:
    if not value:
        return frozenset(offer.stages)
    names = {name.strip() for name in value.split(",")}
    unknown = names - set(STAGES)
    if unknown:
        raise InvalidParameter(
            "stages",
            f"unknown stage {sorted(unknown)[0]!r}; a comma-separated choice of "
            f"{', '.join(STAGES)}",
        )
    if "asr" not in names:
        raise InvalidParameter("stages", "must contain asr")
    for name in sorted(names):
        if name not in offer.stages:
            raise StageNotDeployed(name, ", ".join(offer.stages))
    return frozenset(stage for stage in STAGES if stage in names)


def _response_format(value: str) -> ResponseFormat:
    if value not in get_args(ResponseFormat):
        raise InvalidParameter(
            "response_format", f"{value!r} is not one of {', '.join(get_args(ResponseFormat))}"
        )
    return cast(ResponseFormat, value)


def _granularities(
    fields: Mapping[str, Sequence[str]], response_format: ResponseFormat
) -> frozenset[Granularity]:
    name = "timestamp_granularities[]"
    values = {*fields.get(name, ()), *fields.get("timestamp_granularities", ())}
    for value in values:
        if value not in get_args(Granularity):
            raise InvalidParameter(
                name, f"{value!r} is not one of {', '.join(get_args(Granularity))}"
            )
    if values and response_format != "verbose_json":
        raise InvalidParameter(name, "needs response_format verbose_json")
    if not values:
        return frozenset({"segment"})
    return frozenset(cast(set[Granularity], values))


def _includes_utterances(
    fields: Mapping[str, Sequence[str]], response_format: ResponseFormat
) -> bool:
    values = set(fields.get("include[]", ()))
    if not values:
        return False
    if values != {_UTTERANCES}:
        raise InvalidParameter(
            "include[]", f"can be {_UTTERANCES} only; word confidences are in verbose_json"
        )
    if response_format != "verbose_json":
        raise InvalidParameter("include[]", "needs response_format verbose_json")
    return True


def _boolean(name: str, value: str) -> bool:
    lowered = value.strip().lower()
    if lowered in {"true", "1"}:
        return True
    if lowered in {"false", "0", ""}:
        return False
    raise InvalidParameter(name, f"{value!r} is not true or false")
