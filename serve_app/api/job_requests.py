"""What was asked for with a job: the document ID/request.json, and what follows from it.

The API writes the document before the job exists; a runner reads it to transcribe, and the API
again to render the result. A job keeps everything that its fields ask for, such as speaker
labels, whatever the response format: the result may be rendered in another one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from serve_app.api.errors import error_body
from serve_app.api.hotword_report import report_hotwords
from serve_app.api.parameters import (
    UNLABELLED_FORMATS,
    Offer,
    RequestWarning,
    TranscriptionParameters,
    parse_parameters,
)
from serve_app.api.service import TranscriptionJob, TranscriptionService
from serve_app.api.speaker_fields import NAMES, REFERENCES, SPEAKER_NUMBERS, read_speaker_options
from serve_app.api.subtitle_fields import SUBTITLE_FIELDS
from serve_app.audio import AudioLimits
from serve_app.core.errors import InvalidParameter, ParaserveError
from serve_app.core.records import STAGES, FileBytes, RequestContext
from serve_app.core.speakers import SpeakerOptions
from serve_app.jobs.records import JobError

REQUEST_FILE = "request.json"
_VERSION = 1

RESULT_FIELDS = SUBTITLE_FIELDS | {
    "response_format",
    "timestamp_granularities",
    "include",
    "subtitle_speakers",
    "subtitle_channels",
}
"""The fields that only concern how a transcript is written, so that a result may have others."""

_SHOWN_BY_FORMATS = {"speaker_labels", "channels", "stages", NAMES, REFERENCES, *SPEAKER_NUMBERS}


@dataclass(frozen=True, slots=True)
class JobRequest:
    """The content of ID/request.json.

    Attributes:
        fields: of the transcription, as they were sent, without those that concern the job.
        audio: names of the files that are the recording, one after the other.
        model: name of the pack that was to recognize it when the job was created.
        language: spoken language as it was understood then; None if it is guessed.
        warnings: that hold for a result in any format; see `lasting_warnings`.
    """

    fields: Mapping[str, Sequence[str]]
    audio: Sequence[str]
    model: str
    language: str | None = None
    warnings: Sequence[RequestWarning] = ()


def write_job_request(request: JobRequest) -> bytes:
    content = {
        "version": _VERSION,
        "fields": {name: list(values) for name, values in request.fields.items()},
        "audio": list(request.audio),
        "model": request.model,
        "language": request.language,
        "warnings": [(warning.param, warning.message) for warning in request.warnings],
    }
    return json.dumps(content).encode("ascii")


def read_job_request(content: bytes) -> JobRequest:
    """Returns the request that `write_job_request` wrote.

    Raises:
        ValueError: the content is of a newer release, or no such document.
    """
    stored: Any = json.loads(content)
    version = stored.get("version") if isinstance(stored, dict) else None
    if version != _VERSION:
        raise ValueError(f"a request of version {version!r}; this release reads {_VERSION}")
    try:
        return JobRequest(
            {str(name): _texts(values) for name, values in stored["fields"].items()},
            _texts(stored["audio"]),
            str(stored["model"]),
            None if stored["language"] is None else str(stored["language"]),
            tuple(RequestWarning(str(param), str(why)) for param, why in stored["warnings"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not the request of a job: {error!r}") from None


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("a list of texts is missing")
    return tuple(values)


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """What the fields of a job mean to the service as it is now.

    Attributes:
        parameters: of the transcription, without hotwords that its model cannot use.
        speakers: what is known about the speakers; None for no labels.
    """

    parameters: TranscriptionParameters
    speakers: SpeakerOptions | None

    def transcription(self, context: RequestContext, audio: FileBytes) -> TranscriptionJob:
        """Returns what the service transcribes.

        `parameters.text_rules` are to be applied to its events, see `apply_rules`.
        """
        parameters = self.parameters
        return TranscriptionJob(
            context,
            audio,
            parameters.stages,
            parameters.recognition_options,
            parameters.speech_detection,
            self.speakers,
            parameters.separate_channels,
        )


async def prepare_job(
    fields: Mapping[str, Sequence[str]],
    service: TranscriptionService,
    limits: AudioLimits,
    context: RequestContext,
) -> PreparedJob:
    """Checks the fields of a job as those of a synchronous request, and returns what they mean.

    Args:
        fields: as in `JobRequest`.
        service: asked which hotwords its model can use, if there are any.
        limits: of accepted audio, for the recordings of known speakers.
        context: of the job, or of the request that creates it.

    Raises:
        ParaserveError: a field is wrong, or the service does not offer what it asks for.
    """
    parameters = _parse(fields, service.offer)
    if parameters.recognition_options.hotwords:
        check = await service.check_hotwords(parameters.recognition_options, context)
        parameters = report_hotwords(parameters, check, service.offer)
    speakers: SpeakerOptions | None = None
    if parameters.speakers is not None:
        speakers = await read_speaker_options(parameters.speakers, limits)
    return PreparedJob(parameters, speakers)


def _parse(fields: Mapping[str, Sequence[str]], offer: Offer) -> TranscriptionParameters:
    """Returns the parameters with all that the fields ask for, whatever their format shows.

    Warnings that only concern the format are left out.
    """
    as_sent = parse_parameters(fields, offer)
    if as_sent.response_format not in UNLABELLED_FORMATS:
        return as_sent
    detailed = parse_parameters(_with_format(fields, "verbose_json"), offer)
    return replace(
        detailed,
        response_format=as_sent.response_format,
        warnings=tuple(one for one in detailed.warnings if one in as_sent.warnings),
    )


def parse_result_fields(
    request: JobRequest, sent: Mapping[str, Sequence[str]], offer: Offer
) -> TranscriptionParameters:
    """Returns how to write the result of a job.

    What the service offers by now does not matter: a result can be read after its model is gone.

    Args:
        request: of the job; its fields are the defaults.
        sent: fields of the request for the result.
        offer: of the service; only its subtitle options and its names are used.

    Raises:
        InvalidParameter: a field is wrong, or concerns the recognition.
    """
    for name in sent:
        if _base(name) not in RESULT_FIELDS:
            raise InvalidParameter(
                name[:64],
                "is not a field of a result, which takes only response_format, "
                "timestamp_granularities, include and the subtitle options",
            )
    replaced = {_base(name) for name in sent}
    kept = {
        name: values
        for name, values in request.fields.items()
        if _base(name) in (RESULT_FIELDS | _SHOWN_BY_FORMATS) - replaced
    }
    if "response_format" in replaced:
        # It is refused with other formats, and was meant for the job's own.
        kept = {name: values for name, values in kept.items() if _base(name) != "include"}
    fields = {**kept, **sent, "model": [offer.model]}
    parameters = parse_parameters(fields, replace(offer, stages=STAGES))
    if parameters.response_format == "diarized_json" and not _asks_for_labels(request, offer):
        raise InvalidParameter(
            "response_format",
            "diarized_json needs speaker labels, which the job was not asked for; create it with "
            "speaker_labels=true",
        )
    return replace(
        parameters,
        model=request.model,
        language=request.language,
        warnings=(*request.warnings, *parameters.warnings),
    )


def lasting_warnings(parameters: TranscriptionParameters) -> tuple[RequestWarning, ...]:
    """Returns the warnings that hold for a result in any format."""
    return tuple(
        one
        for one in parameters.warnings
        if _base(one.param) not in RESULT_FIELDS | _SHOWN_BY_FORMATS
    )


def _asks_for_labels(request: JobRequest, offer: Offer) -> bool:
    fields = {
        name: values
        for name, values in request.fields.items()
        if _base(name) in _SHOWN_BY_FORMATS | {"response_format", "subtitle_speakers"}
    }
    parsed = _parse({**fields, "model": [offer.model]}, replace(offer, stages=STAGES))
    return parsed.speakers is not None


def _with_format(
    fields: Mapping[str, Sequence[str]], response_format: str
) -> dict[str, Sequence[str]]:
    others = {name: values for name, values in fields.items() if _base(name) != "response_format"}
    return {**others, "response_format": [response_format]}


def _base(name: str) -> str:
    """Returns the name of a field without `[]` or an index."""
    return name.partition("[")[0]


def job_error(error: ParaserveError) -> JobError:
    """Returns why a job failed, as a response of the API would say it."""
    detail = error_body(error)["error"]
    return JobError(detail["code"], detail["message"], detail["param"])
