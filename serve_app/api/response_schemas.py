"""The responses in the OpenAPI document: their schemas, and the statuses of each route."""

from __future__ import annotations

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
    404: "The model is not served here.",
    405: "The path does not support this method.",
    408: "The body arrived too slowly.",
    413: "The file is too large or the recording too long.",
    414: "The path and query are too long.",
    421: "The Host header does not name one of the service's hosts.",
    429: "The service, or the API key, is at its limit.",
    431: "The headers are too many or too long.",
    500: "Internal error.",
    503: "The service is starting or stopping, has no room for the recording, "
    "or cannot check API keys.",
    504: "The deadline passed.",
}
# The head of every request is checked before routing.
_EVERYWHERE = (400, 414, 421, 431, 500, 503)


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
    """Returns all referenced schemas by name."""
    inputs: list[Any] = [
        (name, "serialization", TypeAdapter(kind)) for name, kind in _NAMED.items()
    ]
    written, shared = TypeAdapter.json_schemas(inputs, ref_template=_REFERENCE)
    schemas: dict[str, Any] = dict(shared.get("$defs", {}))
    for (name, _), schema in written.items():
        if schema != reference(str(name)):
            schemas[str(name)] = schema
    return dict(sorted({**schemas, "ServerSentEvent": _SERVER_SENT_EVENT}.items()))


def errors(*statuses: int) -> Responses:
    """Returns the error responses of a route, in OpenAI's error format."""
    found: Responses = {}
    for status in statuses:
        found[status] = {
            "description": _ERRORS[status],
            "content": {"application/json": {"schema": reference("ErrorAnswer")}},
        }
    return found


def json_answer(name: str, description: str) -> Responses:
    """Returns the success response of a route that has a single schema."""
    content = {"application/json": {"schema": reference(name)}}
    return {200: {"description": description, "content": content}}


TRANSCRIPTION_RESPONSES: Responses = {
    200: {
        "description": "The transcript, in the requested format.",
        "content": {
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
            "text/plain": {
                "schema": {"type": "string", "description": "For `text` and `srt`."},
            },
            "text/vtt": {"schema": {"type": "string", "description": "For `vtt`."}},
            "text/event-stream": {"schema": reference("ServerSentEvent")},
        },
    },
    **errors(401, 403, 404, 405, 408, 413, 429, 504, *_EVERYWHERE),
}

MODEL_LIST_RESPONSES: Responses = {
    **json_answer("ModelList", "The served models."),
    **errors(401, 403, 405, *_EVERYWHERE),
}
MODEL_RESPONSES: Responses = {
    **json_answer("ModelDescription", "The model."),
    **errors(401, 403, 404, 405, *_EVERYWHERE),
}
HEALTH_RESPONSES: Responses = {
    **json_answer("Health", "The process is running."),
    **errors(405, *_EVERYWHERE),
}
READINESS_RESPONSES: Responses = {
    **json_answer("Readiness", "All stages are ready."),
    **errors(405, *_EVERYWHERE),
}
