"""What the OpenAPI document says of requests.

The body of a transcription is parsed while it streams, so FastAPI cannot derive it.
"""

from __future__ import annotations

from typing import Any

from serve_app.api.admission import TIMEOUT_HEADER
from serve_app.api.response_headers import describe_headers
from serve_app.api.response_schemas import component_schemas, reference
from serve_app.api.speech_fields import MAX_PADDING_MS, MAX_SILENCE_MS, MIN_SILENCE_MS
from serve_app.api.subtitle_fields import subtitle_field_schemas

TRANSCRIPTIONS_PATH = "/v1/audio/transcriptions"

_FIELDS: dict[str, dict[str, Any]] = {
    "file": {"type": "string", "format": "binary", "description": "The recording."},
    "audio_url": {
        "type": "string",
        "description": "Where the recording is to be fetched from instead, https or s3, if the "
        "service is set up for it.",
    },
    "model": {
        "type": "string",
        "description": "A name from /v1/models, which has OpenAI's names as well.",
    },
    "language": {
        "type": "string",
        "description": "Its language by code or name, as zh, zh-CN, Chinese or 中文; auto to have "
        "it guessed where the model can.",
    },
    "languages[]": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Languages that it may be in; the first one that is served counts, if "
        "`language` is not given.",
    },
    "response_format": {
        "type": "string",
        "enum": ["json", "text", "srt", "vtt", "verbose_json"],
        "default": "json",
    },
    "timestamp_granularities[]": {
        "type": "array",
        "items": {"type": "string", "enum": ["word", "segment"]},
        "description": "What verbose_json lists with times; segments unless given. Without effect "
        "on other formats.",
    },
    "stream": {
        "type": "boolean",
        "default": False,
        "description": "Send the text as server-sent events while it is recognized, with the "
        "formats json and text; without effect on others.",
    },
    "stages": {
        "type": "string",
        "description": "Which of vad, asr and punctuation to run, comma-separated or as stages[]; "
        "all that are deployed unless given.",
        "examples": ["vad,asr,punctuation"],
    },
    "include[]": {
        "type": "array",
        "items": {"type": "string", "enum": ["logprobs", "utterances"]},
        "description": "What the answer has besides: `logprobs` of each token (json, verbose_json "
        "and streams), `utterances`, where speech was heard (verbose_json).",
    },
    "prompt": {"type": "string", "description": "Accepted and not used."},
    "temperature": {"type": "number", "description": "Accepted and not used."},
    "chunking_strategy": {
        "description": "How speech is found: `auto`, or an object whose values go to the VAD; in a "
        "form as JSON, or as chunking_strategy[type]=server_vad and so on.",
        "oneOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {
                    "type": {"type": "string", "enum": ["server_vad", "auto"]},
                    "silence_duration_ms": {
                        "type": "number",
                        "minimum": MIN_SILENCE_MS,
                        "maximum": MAX_SILENCE_MS,
                    },
                    "prefix_padding_ms": {
                        "type": "number",
                        "minimum": 0,
                        "maximum": MAX_PADDING_MS,
                    },
                    "threshold": {"type": "number", "minimum": 0, "maximum": 1},
                },
            },
        ],
    },
    "itn": {
        "type": "boolean",
        "default": False,
        "description": "Write Mandarin numbers, dates and amounts in digits. Times stay.",
    },
    "replacements": {
        "type": "string",
        "description": "Phrases that are written otherwise: a JSON object of wrong and right "
        "phrases, or lines of wrong=>right. At most 200 of at most 64 letters.",
        "example": "云梯=>云T",
    },
    "hotwords": {
        "type": "string",
        "maxLength": 20000,
        "description": "Words that the model should prefer, where it can: a JSON list, a JSON "
        "object of words and weights, or words with spaces, commas or line breaks between them, "
        "a weight behind a word that stands alone. At most 100 words of at most 32 characters.",
        "examples": ['["阿里巴巴", "通义实验室"]'],
    },
    "keywords[]": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Words or phrases that the model should prefer, where it can: hotwords "
        "under OpenAI's name.",
    },
    "refine_keywords": {
        "type": "string",
        "maxLength": 20000,
        "description": "Words that make a draft worth refining wherever it contains one, for the "
        "hybrid recognizer; a JSON list, or words with spaces or commas between them.",
    },
    **subtitle_field_schemas(),
}

_JSON_FIELDS = {name.removesuffix("[]"): field for name, field in _FIELDS.items() if name != "file"}

REQUEST_SCHEMAS: dict[str, Any] = {
    "TranscriptionForm": {
        "title": "TranscriptionForm",
        "type": "object",
        "required": ["model"],
        "properties": _FIELDS,
    },
    "TranscriptionOfUrl": {
        "title": "TranscriptionOfUrl",
        "type": "object",
        "required": ["model", "audio_url"],
        "properties": _JSON_FIELDS,
    },
}

PROTECTED: dict[str, Any] = {"security": [{"apiKey": []}, {}]}
"""For routes that may ask for a key."""

TRANSCRIPTION_REQUEST: dict[str, Any] = {
    **PROTECTED,
    "parameters": [
        {
            "name": TIMEOUT_HEADER,
            "in": "header",
            "schema": {"type": "number", "exclusiveMinimum": 0},
            "description": "Seconds from the request's arrival after which it is given up.",
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": reference("TranscriptionForm")},
            "application/json": {"schema": reference("TranscriptionOfUrl")},
        },
    },
}

SECURITY_SCHEMES: dict[str, Any] = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "If the service demands keys."}
}


def document(written: dict[str, Any]) -> dict[str, Any]:
    """Returns the document that FastAPI has written, with what it cannot know.

    It lists a 422 for each route with a parameter in its path, which never fails here.
    """
    for path, operations in written["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            for status, response in operation["responses"].items():
                response["headers"] = describe_headers(
                    int(status), of_transcripts=path == TRANSCRIPTIONS_PATH
                )
    written["components"] = {
        "schemas": {**REQUEST_SCHEMAS, **component_schemas()},
        "securitySchemes": SECURITY_SCHEMES,
    }
    return written
