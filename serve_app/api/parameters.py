"""Parses and validates the parameters of a transcription request.

Field names and values follow OpenAI's `POST /v1/audio/transcriptions`; `stages`, `itn`,
`replacements`, `hotwords`, `refine_keywords`, `subtitle_...`, `channels`, `speaker_labels`, the
numbers of speakers and the value `utterances` of `include` are extensions. docs/api.md lists
all fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal, cast, get_args

from serve_app.api.fields import RequestFields, read_fields
from serve_app.api.hotword_fields import MAX_WORDS, hotwords_of, unweighted
from serve_app.api.model_names import resolve_model
from serve_app.api.speaker_fields import (
    NAMES,
    REFERENCES,
    SPEAKER_NUMBERS,
    SpeakerFields,
    has_reference,
    parse_speaker_fields,
)
from serve_app.api.speech_fields import parse_chunking, parse_language
from serve_app.api.subtitle_fields import parse_subtitle_options
from serve_app.core.errors import InvalidParameter, ModelNotFound, StageNotDeployed
from serve_app.core.languages import GUESSED
from serve_app.core.records import (
    AS_DEPLOYED,
    NO_OPTIONS,
    STAGES,
    Hotword,
    RecognitionOptions,
    SpeechDetection,
    Stage,
)
from serve_app.settings.subtitles import SubtitleSettings
from serve_app.transcript.itn import (
    AS_SAID,
    Replacement,
    TextRules,
    merge_replacements,
    parse_replacements,
)
from serve_app.transcript.itn.replacements import MAX_REPLACEMENTS
from serve_app.transcript.subtitles import DEFAULT_SUBTITLES, SubtitleOptions

ResponseFormat = Literal["json", "text", "srt", "vtt", "verbose_json", "diarized_json"]
Granularity = Literal["word", "segment"]

_LOGPROBS, _UTTERANCES = "logprobs", "utterances"
_DIARIZED = "diarized_json"
_SPEAKER_LABELS, _SUBTITLE_SPEAKERS = "speaker_labels", "subtitle_speakers"
_MIX, _SEPARATE = "mix", "separate"
_SUBTITLE_CHANNELS = "subtitle_channels"
STREAMABLE_FORMATS = ("json", "text", _DIARIZED)
UNLABELLED_FORMATS = ("json", "text")
_SUBTITLE_FORMATS = ("srt", "vtt")
_LOGPROB_FORMATS = ("json", "verbose_json")
_SPEAKERS: frozenset[Stage] = frozenset({"speakers"})
_KEYWORDS = "keywords"
_MAX_SHOWN_LETTERS = 64
_MAX_REPLACEMENT_LETTERS = 65_536


@dataclass(frozen=True, slots=True)
class Offer:
    """The models, stages and options that a deployment offers.

    Attributes:
        model: name of the default pack.
        model_aliases: other names for it.
        languages: accepted values of `language`.
        stages: stages that are deployed.
        default_language: language of requests without one; None if it is guessed.
        other_models: other served packs.
        takes_keywords: whether the recognizer refines drafts that contain certain words.
        guesses_language: whether the recognizer can guess the language.
        serves_paraformer: whether FunASR's names for Paraformer are understood.
        unknown_fields: how to treat unknown fields.
        unwritable_hotwords: how to treat hotwords that the model cannot use.
        replacements: of the service; those of a request take precedence.
        subtitles: defaults of the subtitle options.
    """

    model: str
    model_aliases: tuple[str, ...]
    languages: tuple[str, ...]
    stages: tuple[Stage, ...]
    default_language: str | None
    other_models: tuple[str, ...] = ()
    takes_keywords: bool = False
    guesses_language: bool = False
    serves_paraformer: bool = False
    unknown_fields: Literal["ignore", "refuse"] = "ignore"
    unwritable_hotwords: Literal["report", "refuse"] = "report"
    replacements: tuple[Replacement, ...] = ()
    subtitles: SubtitleSettings = field(default_factory=SubtitleSettings)

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the packs that are served."""
        return (self.model, *self.other_models)


@dataclass(frozen=True, slots=True)
class RequestWarning:
    """A field that has no effect, or only a partial effect.

    Attributes:
        param: name of the field.
        message: the reason, as the predicate of a sentence about the field.
    """

    param: str
    message: str

    def __str__(self) -> str:
        return f"{self.param} {self.message}"


@dataclass(frozen=True, slots=True)
class TranscriptionParameters:
    """The validated parameters of a request.

    Attributes:
        model: the pack that recognizes it.
        language: spoken language; None if the recognizer guesses it.
        stages: to run.
        response_format: of the answer.
        granularities: of the times that `verbose_json` and the events of a stream list.
        stream: send the text while it is recognized.
        include_utterances: list utterances in `verbose_json`.
        include_logprobs: list the log-probability of each token.
        text_rules: rules that change the text.
        recognition_options: for the recognizer.
        subtitles: options of the cues.
        speech_detection: for the VAD.
        speakers: what is known about the speakers; None for no labels.
        separate_channels: recognize each channel for itself, instead of their mix.
        needs_hotwords: whether hotwords were given as `hotwords`, so that a model that has
            no use for any is a mistake; OpenAI's `keywords` are only a preference.
        ignored_fields: names of unknown fields, as they were sent.
        warnings: about fields without effect, or with a partial effect.
    """

    model: str
    language: str | None
    stages: frozenset[Stage]
    response_format: ResponseFormat = "json"
    granularities: frozenset[Granularity] = frozenset()
    stream: bool = False
    include_utterances: bool = False
    include_logprobs: bool = False
    text_rules: TextRules = AS_SAID
    recognition_options: RecognitionOptions = NO_OPTIONS
    subtitles: SubtitleOptions = DEFAULT_SUBTITLES
    speech_detection: SpeechDetection = AS_DEPLOYED
    speakers: SpeakerFields | None = None
    separate_channels: bool = False
    needs_hotwords: bool = False
    ignored_fields: tuple[str, ...] = ()
    warnings: tuple[RequestWarning, ...] = ()


def parse_parameters(sent: Mapping[str, Sequence[str]], offer: Offer) -> TranscriptionParameters:
    """Checks the fields of a request against what is offered.

    Unknown fields are named in the result, or rejected if the offer says so.
    `prompt` and `temperature` are accepted for clients that always send them;
    greedy decoding does not use them.

    Raises:
        InvalidParameter: a field is misspelled, repeated or has a value out of range.
        ModelNotFound: `model` is not served here.
        StageNotDeployed: `stages` names a stage that is not deployed, or speaker labels are
            asked for without the stage `speakers`.
    """
    return _Parser(read_fields(sent, offer.unknown_fields == "refuse"), offer).parse()


class _Parser:
    """Reads one request's fields, and records those without effect."""

    def __init__(self, fields: RequestFields, offer: Offer) -> None:
        self._fields = fields
        self._offer = offer
        self._warnings: list[RequestWarning] = []
        self._ignored = list(fields.ignored)

    def parse(self) -> TranscriptionParameters:
        self._check_temperature()
        model = self._model()
        response_format = self._response_format()
        speakers = self._speakers(response_format)
        separate_channels = self._separate_channels()
        language = self._language()
        stages = self._stages()
        stages = stages - _SPEAKERS if speakers is None else stages | _SPEAKERS
        logprobs, utterances = self._included(response_format)
        stream = self._stream(response_format)
        return TranscriptionParameters(
            model=model,
            language=self._reported_language(language),
            stages=stages,
            response_format=response_format,
            granularities=self._granularities(response_format, stream),
            stream=stream,
            include_utterances=utterances,
            include_logprobs=logprobs,
            text_rules=self._text_rules(),
            recognition_options=self._recognition_options(model, language),
            subtitles=replace(
                parse_subtitle_options(self._fields.texts, self._offer.subtitles),
                with_speakers=speakers is not None and self._boolean(_SUBTITLE_SPEAKERS),
                with_channels=self._subtitle_channels(response_format, separate_channels),
            ),
            speech_detection=self._speech_detection(stages),
            speakers=speakers,
            separate_channels=separate_channels,
            needs_hotwords=self._has_hotwords(),
            ignored_fields=tuple(self._ignored),
            warnings=tuple(self._warnings),
        )

    def _warn(self, param: str, message: str) -> None:
        self._warnings.append(RequestWarning(param, message))

    def _text(self, name: str) -> str | None:
        return self._fields.texts.get(name)

    def _check_temperature(self) -> None:
        text = self._text("temperature")
        try:
            is_valid = text is None or 0 <= float(text) <= 1
        except ValueError:
            is_valid = False
        if not is_valid:
            raise InvalidParameter("temperature", "must be a number from 0 to 1")

    def _model(self) -> str:
        name = (self._text("model") or "").strip()
        if not name:
            raise InvalidParameter(
                "model", f"is required; served here: {', '.join(self._offer.models)}"
            )
        model = resolve_model(name, self._offer)
        if model is None:
            served = ", ".join((*self._offer.models, *self._offer.model_aliases))
            raise ModelNotFound(name[:_MAX_SHOWN_LETTERS], served)
        return model

    def _response_format(self) -> ResponseFormat:
        value = (self._text("response_format") or "json").strip().lower()
        _check_choice("response_format", value, get_args(ResponseFormat))
        return cast(ResponseFormat, value)

    def _speakers(self, response_format: ResponseFormat) -> SpeakerFields | None:
        """Returns what is known about the speakers; None if no labels are asked for."""
        asking = self._fields_that_ask_for_labels(response_format)
        if asking and self._text(_SPEAKER_LABELS) and not self._boolean(_SPEAKER_LABELS):
            raise InvalidParameter(_SPEAKER_LABELS, f"cannot be false with {asking[0]}")
        if self._boolean(_SPEAKER_LABELS):
            asking.append(_SPEAKER_LABELS)
        if "speakers" in [name.lower() for name in self._fields.listed("stages")]:
            asking.append("stages")
        speakers = parse_speaker_fields(self._fields)
        if not asking:
            for name in (NAMES, REFERENCES):
                if self._fields.lists.get(name):
                    self._warn(name, f"has no effect with response_format {response_format}")
            return None
        if "speakers" not in self._offer.stages:
            raise StageNotDeployed("speakers", ", ".join(self._offer.stages))
        if response_format in UNLABELLED_FORMATS:
            for name in asking:
                self._warn(name, f"has no effect with response_format {response_format}")
            return None
        if self._boolean(_SUBTITLE_SPEAKERS) and response_format not in _SUBTITLE_FORMATS:
            self._warn(_SUBTITLE_SPEAKERS, f"has no effect with response_format {response_format}")
        return speakers

    def _fields_that_ask_for_labels(self, response_format: ResponseFormat) -> list[str]:
        """Returns the fields that imply `speaker_labels`.

        The placeholders that some clients send for known speakers are not data URLs; they ask
        for nothing where the format has no labels.
        """
        asking = [name for name in SPEAKER_NUMBERS if self._text(name)]
        known = [name for name in (NAMES, REFERENCES) if self._fields.lists.get(name)]
        if response_format not in UNLABELLED_FORMATS or has_reference(self._fields):
            asking += known
        if self._boolean(_SUBTITLE_SPEAKERS):
            asking.append(_SUBTITLE_SPEAKERS)
        if response_format == _DIARIZED:
            asking.append("response_format")
        return asking

    def _separate_channels(self) -> bool:
        value = (self._text("channels") or _MIX).strip().lower()
        _check_choice("channels", value, (_MIX, _SEPARATE))
        return value == _SEPARATE

    def _subtitle_channels(self, response_format: ResponseFormat, separate_channels: bool) -> bool:
        if not self._boolean(_SUBTITLE_CHANNELS):
            return False
        if not separate_channels:
            self._warn(_SUBTITLE_CHANNELS, f"has no effect without channels={_SEPARATE}")
        elif response_format not in _SUBTITLE_FORMATS:
            self._warn(_SUBTITLE_CHANNELS, f"has no effect with response_format {response_format}")
        return separate_channels

    def _language(self) -> str | None:
        """Returns the requested code, GUESSED, or None without one."""
        text = self._text("language")
        language = None if text is None else self._parse_language("language", text)
        if language is not None:
            return language
        refusal: InvalidParameter | None = None
        for value in self._fields.listed("languages"):
            try:
                language = self._parse_language("languages", value)
            except InvalidParameter as error:
                refusal = refusal or error
                continue
            if language is not None:
                return language
        if refusal is not None:
            raise refusal
        return None

    def _parse_language(self, name: str, value: str) -> str | None:
        language = parse_language(name, value, self._offer)
        if language is None:
            self._warn(name, f"has no effect: {value[:_MAX_SHOWN_LETTERS]!r} is not a language")
        return language

    def _reported_language(self, language: str | None) -> str | None:
        if language == GUESSED:
            return None
        return language or self._offer.default_language

    def _stages(self) -> frozenset[Stage]:
        names = [name.lower() for name in self._fields.listed("stages")]
        if not names:
            return frozenset(self._offer.stages)
        for name in names:
            _check_choice("stages", name, STAGES)
        if "asr" not in names:
            raise InvalidParameter("stages", "must contain asr")
        for name in sorted(names):
            if name not in self._offer.stages:
                raise StageNotDeployed(name, ", ".join(self._offer.stages))
        return frozenset(stage for stage in STAGES if stage in names)

    def _stream(self, response_format: ResponseFormat) -> bool:
        if not self._boolean("stream"):
            return False
        if response_format not in STREAMABLE_FORMATS:
            self._warn("stream", f"has no effect with response_format {response_format}")
            return False
        return True

    def _granularities(
        self, response_format: ResponseFormat, stream: bool
    ) -> frozenset[Granularity]:
        name = "timestamp_granularities"
        values = [value.lower() for value in self._fields.listed(name)]
        for value in values:
            _check_choice(name, value, get_args(Granularity))
        if response_format != "verbose_json" and not stream and "word" in values:
            self._warn(name, "has no effect: only verbose_json and streams include word times")
        return frozenset(cast(list[Granularity], values)) or frozenset({"segment"})

    def _included(self, response_format: ResponseFormat) -> tuple[bool, bool]:
        """Returns whether to list log-probabilities, and whether utterances."""
        values = [value.lower() for value in self._fields.listed("include")]
        for value in values:
            _check_choice("include", value, (_LOGPROBS, _UTTERANCES))
        if _UTTERANCES in values and response_format != "verbose_json":
            raise InvalidParameter(
                "include", f"{_UTTERANCES} requires response_format verbose_json"
            )
        if _LOGPROBS in values and response_format not in _LOGPROB_FORMATS:
            self._warn(
                "include", f"{_LOGPROBS} has no effect with response_format {response_format}"
            )
        has_logprobs = _LOGPROBS in values and response_format in _LOGPROB_FORMATS
        return has_logprobs, _UTTERANCES in values

    def _text_rules(self) -> TextRules:
        if sum(map(len, self._fields.replacements)) > _MAX_REPLACEMENT_LETTERS:
            raise InvalidParameter(
                "replacements", f"must not be longer than {_MAX_REPLACEMENT_LETTERS} characters"
            )
        try:
            found = [parse_replacements(text) for text in self._fields.replacements]
        except ValueError as error:
            raise InvalidParameter("replacements", str(error)) from None
        own = tuple(chain.from_iterable(found))
        if len(own) > MAX_REPLACEMENTS:
            raise InvalidParameter(
                "replacements", f"has {len(own)} entries; at most {MAX_REPLACEMENTS} are accepted"
            )
        return TextRules(self._boolean("itn"), merge_replacements(own, self._offer.replacements))

    def _has_hotwords(self) -> bool:
        fields = self._fields
        return bool(fields.hotwords or fields.hotword_entries or fields.hotword_weights)

    def _recognition_options(self, model: str, language: str | None) -> RecognitionOptions:
        fields = self._fields
        keywords = hotwords_of((), fields.lists.get(_KEYWORDS, ()), None, _KEYWORDS)
        hotwords = hotwords_of(fields.hotwords, fields.hotword_entries, fields.hotword_weights)
        merged = {word.text: word for word in (*keywords, *hotwords)}
        if len(merged) > MAX_WORDS:
            raise InvalidParameter(
                _KEYWORDS,
                f"and hotwords have {len(merged)} words together; at most {MAX_WORDS} are accepted",
            )
        return RecognitionOptions(
            model=None if model == self._offer.model else model,
            hotwords=tuple(merged.values()),
            keywords=self._refine_keywords(keywords),
            language=language,
        )

    def _refine_keywords(self, keywords: tuple[Hotword, ...]) -> tuple[str, ...]:
        name = "refine_keywords"
        words = unweighted(name, self._fields.lists.get(name, ()))
        if words and not self._offer.takes_keywords:
            raise InvalidParameter(
                name, "requires recognizer.engine hybrid; this deployment does not refine drafts"
            )
        if not words and keywords and self._offer.takes_keywords:
            self._warn(
                _KEYWORDS,
                f"means words to prefer, as at OpenAI; pass {name} for words whose drafts are to "
                f"be refined, since {_KEYWORDS} will stop doing that",
            )
            return tuple(word.text for word in keywords)
        return words

    def _speech_detection(self, stages: frozenset[Stage]) -> SpeechDetection:
        detection, ignored = parse_chunking(self._fields)
        if ignored and self._offer.unknown_fields == "refuse":
            raise InvalidParameter(ignored[0], "is not a known field")
        self._ignored += ignored
        if detection != AS_DEPLOYED and "vad" not in stages:
            self._warn("chunking_strategy", "has no effect without the vad stage")
        return detection

    def _boolean(self, name: str) -> bool:
        value = self._text(name) or "false"
        lowered = value.strip().lower()
        if lowered in {"true", "1", "yes", "on"}:
            return True
        if lowered in {"false", "0", "no", "off"}:
            return False
        raise InvalidParameter(name, f"must be true or false, not {value[:_MAX_SHOWN_LETTERS]!r}")


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InvalidParameter(
            name, f"must be one of {', '.join(choices)}, not {value[:_MAX_SHOWN_LETTERS]!r}"
        )
