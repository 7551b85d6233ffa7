"""Writes the tables of docs/api.md and docs/errors.md: `python docs/generate_api.py`.

Only what stands between `<!-- generated: NAME -->` and `<!-- end -->` is replaced; the rest of
both pages is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from serve_app.api import job_schemas, openapi, response_schemas
from serve_app.api.errors import STATUS_OF
from serve_app.api.response_headers import RESPONSE_HEADERS, TRANSCRIPTIONS_PATH
from serve_app.core import errors, job_errors, live_errors

DOCS = Path(__file__).parent
_BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.S)

_ROUTES: tuple[tuple[str, response_schemas.Responses], ...] = (
    (f"POST {TRANSCRIPTIONS_PATH}", response_schemas.TRANSCRIPTION_RESPONSES),
    ("GET /v1/models", response_schemas.MODEL_LIST_RESPONSES),
    ("GET /v1/models/NAME", response_schemas.MODEL_RESPONSES),
    ("GET /healthz, /health", response_schemas.HEALTH_RESPONSES),
    ("GET /readyz", response_schemas.READINESS_RESPONSES),
)
_OBJECTS = (
    "Transcription",
    "VerboseTranscription",
    "DiarizedTranscription",
    "DiarizedSegment",
    "Segment",
    "Word",
    "SpokenSpan",
    "FailedSpan",
    "TranscriptionLanguage",
    "TokenLogprob",
    "DurationUsage",
    "ModelDescription",
    "StageDescription",
)
_JOB_OBJECTS = (
    "Job",
    "JobProgress",
    "JobWebhook",
    "JobError",
    "JobList",
    "JobRemoval",
    "Upload",
    "Usage",
    "UsageOfKind",
)
_EVENTS = ("TextDelta", "TextDone", "StreamError", "TokenUsage")

_OF_EVERY_ROUTE = (401, 403, 405, *response_schemas.EVERYWHERE)

# Base classes, the most special first: a class is listed under the first one that it is of.
_FAMILIES: tuple[tuple[str, type[errors.ParaserveError]], ...] = (
    ("recordings", errors.AudioError),
    ("requests", errors.RequestError),
    ("service", errors.ServiceError),
    ("configuration", errors.ConfigurationError),
    ("cluster", errors.ClusterError),
)

# A class without an entry fails the generator: a new error says what to do about it.
REMEDIES: dict[type[errors.ParaserveError], str] = {
    errors.RequestError: "Read the message.",
    errors.InvalidParameter: "Correct the field that `param` names; [api.md](api.md) lists them.",
    errors.MalformedBody: "Send `multipart/form-data`, or JSON with `audio_url`.",
    errors.ModelNotFound: "Use a name from `/v1/models`.",
    errors.StageNotDeployed: "Leave the stage out of `stages`, or have the operator deploy it.",
    errors.Unauthenticated: "Send `Authorization: Bearer psk_...` with a key of this service.",
    errors.KeyNotAllowed: "Ask the operator for a new key.",
    errors.UrlNotAllowed: "Upload the file, or have the operator allow the host or bucket "
    "(`audio_url.*`).",
    errors.UrlFetchFailed: "Check that the URL is readable from the service's network.",
    errors.RequestNotAcceptable: "Fix the HTTP client; the message names the rule.",
    errors.HeadersTooLarge: "Send at most 100 headers and 16 KiB of them.",
    errors.UriTooLong: "Keep path and query below 8 KiB; send the fields in the body.",
    errors.MethodNotAllowed: "Use a method of the header `Allow`.",
    errors.HostNotAllowed: "Use a listed host name, or have the operator extend "
    "`http.allowed_hosts`.",
    errors.UploadTooLarge: "Compress or split the recording, or raise `audio.max_upload_bytes`.",
    errors.UploadTooSlow: "Use a faster connection, or lower `ingress.min_upload_bytes_per_s`.",
    errors.AudioError: "Check the file with another program.",
    errors.EmptyUpload: "Send the file's content; the client may have sent it before.",
    errors.UnknownAudioFormat: "Convert to a format listed in [recordings.md](recordings.md).",
    errors.CorruptAudio: "Record or export the file again.",
    errors.TruncatedAudio: "Upload the complete file.",
    errors.UnsupportedAudioLayout: "Convert to 8 to 192 kHz and at most 32 channels, or with "
    "`channels=separate` at most `audio.max_separate_channels`.",
    errors.InvalidSamples: "Export again, as integer PCM or FLAC.",
    errors.AudioTooShort: "Send a longer recording, or lower `audio.min_duration_s`.",
    errors.AudioTooLong: "Split the recording, or raise `audio.max_duration_s`.",
    errors.AudioTooComplex: "Convert the file, for example to FLAC.",
    errors.AudioTooFragmented: "Convert the file, for example to FLAC.",
    errors.ServiceError: "Try again; then the operator searches the log for the request id.",
    errors.NotReady: "Try again after `Retry-After`; the operator runs `paraserve cluster doctor` "
    "if it stays.",
    errors.ShuttingDown: "Try again, on another instance if there is one.",
    errors.StartFailed: "Read the replica's log, fix the cause, start again.",
    errors.ModelUnavailable: "Try again later; the operator finds the reason in the log.",
    errors.Overloaded: "Try again after `Retry-After`; add replicas or raise `admission.*`.",
    errors.StorageFull: "Try again later; the operator makes room in `audio.spool_dir`.",
    errors.DeadlineExceeded: "Raise `X-Paraserve-Timeout-S` or `ingress.request_timeout_s`, or add "
    "replicas.",
    errors.SpeakersUnavailable: "Send the request again, or without `diarized_json`. The operator "
    "searches the speaker embedder's log for the request id.",
    errors.RecognitionFailed: "The operator searches the recognizer's log for the request id.",
    errors.KeysUnavailable: "The operator restores the keys file.",
    live_errors.NothingToCommit: "Send audio before `input_audio_buffer.commit`.",
    live_errors.TooMuchAudio: "Send at the pace of speech, or use the transcription endpoint.",
    live_errors.UnknownEvent: "Correct the event that the message names; the session goes on.",
    live_errors.OriginNotAllowed: "Serve the page from the service's own address, or have the "
    "operator add its origin to `http.cors_origins`.",
    live_errors.EventsNotRead: "Read the session's events while sending audio.",
    live_errors.SessionIdle: "Open another session when there is audio again.",
    live_errors.SessionTooLong: "Open another session and go on from the position that it names.",
    job_errors.JobNotFound: "Check the id and the key: a job belongs to the API key that created "
    "it, and is removed after `jobs.keep_results_s`.",
    job_errors.JobNotFinished: "Ask again once the job is completed, or give a `webhook_url`.",
    job_errors.JobWithoutResult: "Read the job's `error`; create the job again if it is worth it.",
    job_errors.IdempotencyConflict: "Use a new Idempotency-Key for another request.",
    job_errors.NoWebhook: "Create the job with `webhook_url`, or wait for its end.",
    job_errors.UploadNotFound: "Create the upload again.",
    job_errors.UploadConflict: "Ask for the offset with HEAD, and go on from there.",
    job_errors.UploadIncomplete: "Send the missing parts first.",
    job_errors.TusVersionNotSupported: "Use a client of tus 1.0.",
    job_errors.PartTypeNotSupported: "Use a client of tus 1.0, or set the header.",
    job_errors.TooManyUploads: "Finish or delete an upload; an upload that is left alone expires.",
    job_errors.QueueFull: "Create the job again later; the operator raises `jobs.max_queued`.",
    job_errors.QuotaExceeded: "Wait for the next month, or have the key's quota raised.",
    job_errors.StoreUnavailable: "Try again after `Retry-After`; the operator looks after the "
    "database and the storage.",
    errors.ConfigurationError: "Correct the setting that the message names.",
    errors.PackError: "Do what the message says.",
    errors.PackNotFound: "Check the name with `paraserve models list`, or pull the pack.",
    errors.PackIncomplete: "Delete the pack's directory and pull it again.",
    errors.PackCorrupt: "Delete the pack's directory and pull it again.",
    errors.PackFetchFailed: "Check the network and the hub's client, or copy the pack from another "
    "machine.",
    errors.DeviceUnavailable: "Set `recognizer.device` and `punctuator.device` to what is there.",
    errors.TraceError: "Correct the line that the message names.",
    errors.CostsError: "Measure the costs again ([planning.md](planning.md)).",
    errors.ManifestError: "Correct the lines that the message names.",
    errors.ClusterError: "Do what the message says.",
    errors.ClusterRefused: "Check your rights in the namespace and the name of the release.",
}


def api_page() -> str:
    return _filled("api.md", _api_blocks())


def errors_page() -> str:
    return _filled("errors.md", {name: _error_table(name) for name, _ in _FAMILIES})


def _filled(page: str, blocks: Mapping[str, str]) -> str:
    """Returns a page with its generated blocks written anew.

    Raises:
        KeyError: the page has a block of an unknown name.
    """
    text = (DOCS / page).read_text(encoding="utf-8")
    return _BLOCK.sub(lambda found: f"{found[1]}\n{blocks[found[2]]}\n{found[3]}", text)


def _api_blocks() -> dict[str, str]:
    schemas = response_schemas.component_schemas()
    job_answers = job_schemas.answer_schemas()
    return {
        "fields": _field_table(),
        "objects": "\n".join(_object(name, schemas[name]) for name in _OBJECTS),
        "events": "\n".join(_object(name, schemas[name]) for name in _EVENTS),
        "headers": _header_table(),
        "statuses": _status_table(),
        "job_routes": _job_route_table(),
        "job_fields": _fields_in(job_schemas.JOB_ONLY_FIELDS, ()),
        "job_objects": "\n".join(_object(name, job_answers[name]) for name in _JOB_OBJECTS),
    }


def _table(head: str, rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    lines += [f"| {' | '.join(' '.join(cell.split()) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _field_table() -> str:
    form = openapi.REQUEST_SCHEMAS["TranscriptionForm"]
    return _fields_in(form["properties"], form["required"])


def _fields_in(fields: Mapping[str, Mapping[str, Any]], required: Collection[str]) -> str:
    return _table(
        "| field | type | default | meaning |",
        (
            (
                f"`{name}`" + (", required" if name in required else ""),
                _type_of(field),
                _default_of(field),
                field.get("description", ""),
            )
            for name, field in fields.items()
        ),
    )


def _job_route_table() -> str:
    return _table(
        "| route | purpose | success | further statuses |",
        (
            (
                f"`{route.method} {route.shown_path}`",
                f"{route.summary}.",
                str(min(map(int, route.responses))),
                ", ".join(
                    str(status)
                    for status in sorted(map(int, route.responses))
                    if status >= 400 and status not in _OF_EVERY_ROUTE
                ),
            )
            for route in job_schemas.JOB_ROUTES
        ),
    )


def _default_of(field: Mapping[str, Any]) -> str:
    default = field.get("default")
    return "" if default is None else f"`{str(default).lower()}`"


def _type_of(schema: Mapping[str, Any]) -> str:
    """Returns a type as a reader writes it: `number, 0 to 10`, or the values that are allowed."""
    if reference := schema.get("$ref"):
        return f"`{str(reference).rsplit('/', 1)[-1]}`"
    if choices := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
        return ", ".join(f"`{choice}`" for choice in choices)
    if one_of := schema.get("oneOf") or schema.get("anyOf"):
        return " or ".join(_type_of(choice) for choice in one_of)
    if schema.get("format") == "binary":
        return "file"
    kind = str(schema.get("type", ""))
    if kind == "array":
        return f"list of {_type_of(schema['items'])}"
    if {"minimum", "maximum"} <= schema.keys():
        return f"{kind}, {schema['minimum']:g} to {schema['maximum']:g}"
    return kind


def _object(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    table = _table(
        "| field | type | meaning |",
        (
            (
                f"`{field}`" + ("" if field in required else ", optional"),
                _type_of(described),
                described.get("description", ""),
            )
            for field, described in schema["properties"].items()
        ),
    )
    what = schema["description"].partition("\n\n")[0]
    return f"**`{name}`**: {what}\n\n{table}"


def _header_table() -> str:
    return _table(
        "| header | with | meaning |",
        (
            (
                f"`{header.name}`",
                "every status"
                if header.statuses is None
                else ", ".join(map(str, sorted(header.statuses))),
                header.description,
            )
            for header in RESPONSE_HEADERS
        ),
    )


def _status_table() -> str:
    described: dict[int, str] = {}
    routes: dict[int, list[str]] = {}
    for route, responses in _ROUTES:
        for status, response in responses.items():
            if (number := int(status)) != 200:
                described[number] = response["description"]
                routes.setdefault(number, []).append(route)
    return _table(
        "| status | meaning | on |",
        (
            (
                str(status),
                described[status],
                "every route"
                if len(routes[status]) == len(_ROUTES)
                else ", ".join(f"`{route}`" for route in routes[status]),
            )
            for status in sorted(described)
        ),
    )


def _error_table(family: str) -> str:
    return _table(
        "| code | HTTP status | meaning | what to do | class |",
        (
            (f"`{kind.code}`", str(status), _meaning(kind), REMEDIES[kind], f"`{kind.__name__}`")
            for kind, status in STATUS_OF.items()
            if _family_of(kind) == family
        ),
    )


def _family_of(kind: type[errors.ParaserveError]) -> str | None:
    return next((name for name, root in _FAMILIES if issubclass(kind, root)), None)


def _meaning(kind: type[errors.ParaserveError]) -> str:
    """Returns what is wrong: the first clause of the class's docstring."""
    sentence = " ".join((kind.__doc__ or "").split("\n\n")[0].split()).rstrip(".")
    return sentence.partition("; ")[0] + "."


if __name__ == "__main__":
    for page, text in (("api.md", api_page()), ("errors.md", errors_page())):
        (DOCS / page).write_text(text, encoding="utf-8")
