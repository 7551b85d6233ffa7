"""The responses in the OpenAPI document: their schemas, and the statuses of each route."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from pydantic import TypeAdapter

from serve_app.api import response_models

Responses: TypeAlias = dict[int | str, dict[str, Any]]

_REFERENCE = "#/components/schemas/{model}"
_NAMED: dict[str, Any] = {
    "Transcription": response_models.Transcription,
    "VerboseTranscription": response_models.VerboseTranscription,
    "DiarizedTranscription": response_models.DiarizedTranscription,
    "StreamEvent": response_models.StreamEvent,
    "ModelDescription": response_models.ModelDescription,
    "ModelList": response_models.ModelList,
    "Health": response_models.Health,
    "Readiness": response_models.Readiness,
    "ErrorAnswer": response_models.ErrorAnswer,
}

_ERRORS: dict[int, str] = {
    400: (
        "A field is wrong, the body is malformed, or the recording is empty, not audio, damaged, "
        "truncated, too short or not usable; `code` says which."
    ),
    401: "The API key is missing or not valid.",
    403: "The API key is disabled or has expired, or the URL is not allowed.",
    404: "There is no such model, job or upload, or it belongs to another key.",
    405: "The path does not support this method.",
    408: "The body arrived too slowly.",
    409: "The job or the upload is in another state, or the Idempotency-Key is of another request.",
    412: "The request speaks another version of tus.",
    413: "The file is too large or the recording too long.",
    414: "The path and query are too long.",
    415: "The part of an upload has another Content-Type.",
    421: "The Host header does not name one of the service's hosts.",
    429: "The service, or the API key, is at its limit, or the key's quota is used up.",
    431: "The headers are too many or too long.",
    500: "Internal error.",
    503: "The service is starting or stopping, has no room for the recording, "
    "cannot check API keys, or its store of jobs does not answer.",
    504: "The deadline passed.",
}
EVERYWHERE = (400, 414, 421, 431, 500, 503)
"""Statuses of every route: the head of each request is checked before routing."""


def reference(name: str) -> dict[str, Any]:
    """Returns a reference to the named schema."""
    return {"$ref": _REFERENCE.format(model=name)}


# Its shape is OpenAPI 3.2's, which names the schema of one event `itemSchema`.
_SERVER_SENT_EVENT: dict[str, Any] = {
    "title": "ServerSentEvent",
    "description": "One event of a stream. Comments between events are heartbeats.",
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": reference("StreamEvent"),
        },
        "event": {
            "type": "string",
            "enum": ["message", "error"],
            "default": "message",
            "description": "Sent only with an error.",
        },
    },
}


def component_schemas() -> dict[str, Any]:
    """Returns all schemas that the routes without jobs refer to, by name."""
    return dict(sorted({**schemas_of(_NAMED), "ServerSentEvent": _SERVER_SENT_EVENT}.items()))


def schemas_of(named: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the schemas of types, and of those within them, by name."""
    inputs: list[Any] = [(name, "serialization", TypeAdapter(kind)) for name, kind in named.items()]
    written, shared = TypeAdapter.json_schemas(inputs, ref_template=_REFERENCE)
    schemas: dict[str, Any] = dict(shared.get("$defs", {}))
    for (name, _), schema in written.items():
        if schema != reference(str(name)):
            schemas[str(name)] = schema
    return schemas


def errors(*statuses: int) -> Responses:
    """Returns the error responses of a route, in OpenAI's error format."""
    found: Responses = {}
    for status in statuses:
        found[status] = {
            "description": _ERRORS[status],
            "content": {"application/json": {"schema": reference("ErrorAnswer")}},
        }
    return found


def json_answer(name: str, description: str, status: int = 200) -> Responses:
    """Returns the success response of a route that has a single schema."""
    content = {"application/json": {"schema": reference(name)}}
    return {status: {"description": description, "content": content}}


TRANSCRIPT_CONTENT: dict[str, Any] = {
    "application/json": {
        "schema": {
            # The stricter schemas first: every other body is also a valid json body.
            "anyOf": [
                reference("DiarizedTranscription"),
                reference("VerboseTranscription"),
                reference("Transcription"),
            ]
        }
    },
    "text/plain": {"schema": {"type": "string", "description": "For `text` and `srt`."}},
    "text/vtt": {"schema": {"type": "string", "description": "For `vtt`."}},
}
"""A transcript in the formats of a response that is not a stream."""

TRANSCRIPTION_RESPONSES: Responses = {
    200: {
        "description": "The transcript, in the requested format.",
        "content": {
            **TRANSCRIPT_CONTENT,
            "text/event-stream": {"schema": reference("ServerSentEvent")},
        },
    },
    **errors(401, 403, 404, 405, 408, 413, 429, 504, *EVERYWHERE),
}

MODEL_LIST_RESPONSES: Responses = {
    **json_answer("ModelList", "The served models."),
    **errors(401, 403, 405, *EVERYWHERE),
}
MODEL_RESPONSES: Responses = {
    **json_answer("ModelDescription", "The model."),
    **errors(401, 403, 404, 405, *EVERYWHERE),
}
HEALTH_RESPONSES: Responses = {
    **json_answer("Health", "The process is running."),
    **errors(405, *EVERYWHERE),
}
READINESS_RESPONSES: Responses = {
    **json_answer("Readiness", "All stages are ready."),
    **errors(405, *EVERYWHERE),
}
