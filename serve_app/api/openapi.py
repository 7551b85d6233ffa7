"""The requests in the OpenAPI document.

The body of a transcription is parsed while it streams, so FastAPI cannot derive its schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serve_app.api.admission import TIMEOUT_HEADER
from serve_app.api.response_headers import describe_headers, kind_of
from serve_app.api.response_schemas import component_schemas, reference
from serve_app.api.speaker_fields import (
    MAX_KNOWN_SPEAKERS,
    MAX_NAME_CHARS,
    MAX_REFERENCE_S,
    MIN_REFERENCE_S,
)
from serve_app.api.speech_fields import MAX_PADDING_MS, MAX_SILENCE_MS, MIN_SILENCE_MS
from serve_app.api.subtitle_fields import subtitle_field_schemas
from serve_app.core.speakers import MAX_SPEAKERS

FORM_FIELDS: dict[str, dict[str, Any]] = {
    "file": {
        "type": "string",
        "format": "binary",
        "description": "The recording: an audio or video file.",
    },
    "audio_url": {
        "type": "string",
        "description": "https or s3 URL that the service fetches the recording from, in place of "
        "`file`; only where the service enables it.",
    },
    "model": {
        "type": "string",
        "description": "A model name from /v1/models, which lists OpenAI's names as well.",
    },
    "language": {
        "type": "string",
        "description": "Language of the recording as a code or a name, such as zh, zh-CN, Chinese "
        "or 中文; `auto` detects it if the model can.",
    },
    "languages[]": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Possible languages of the recording; the first one that the model supports "
        "is used, unless `language` is given.",
    },
    "response_format": {
        "type": "string",
        "enum": ["json", "text", "srt", "vtt", "verbose_json", "diarized_json"],
        "default": "json",
        "description": "diarized_json lists who says what; it needs the stage speakers.",
    },
    "timestamp_granularities[]": {
        "type": "array",
        "items": {"type": "string", "enum": ["word", "segment"]},
        "description": "Which timestamps verbose_json includes; segments by default. With word, "
        "the events of a stream list their words. Other formats ignore it.",
    },
    "stream": {
        "type": "boolean",
        "default": False,
        "description": "Stream the text as server-sent events while it is recognized. Works with "
        "the formats json, text and diarized_json; others ignore it.",
    },
    "stages": {
        "type": "string",
        "description": "Which of vad, asr, punctuation and speakers to run, comma-separated or as "
        "stages[]; by default all that are deployed, and speakers only if labels are asked for.",
        "examples": ["vad,asr,punctuation"],
    },
    "include[]": {
        "type": "array",
        "items": {"type": "string", "enum": ["logprobs", "utterances"]},
        "description": "Additional parts of the response: `logprobs`, the log-probability of each "
        "token (json, verbose_json and streams), and `utterances`, the spans in which the VAD "
        "found speech (verbose_json).",
    },
    "prompt": {"type": "string", "description": "Accepted but ignored."},
    "temperature": {"type": "number", "description": "Accepted but ignored."},
    "chunking_strategy": {
        "description": "How speech is detected: `auto`, or an object with parameters for the "
        "VAD. In "
        "a form, pass JSON or fields such as chunking_strategy[type]=server_vad.",
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
        "description": "Write Mandarin numbers, dates and amounts in digits. Timestamps do "
        "not change.",
    },
    "channels": {
        "type": "string",
        "enum": ["mix", "separate"],
        "default": "mix",
        "description": "What to recognize of a recording with several channels: their `mix`, or "
        "each channel for itself, as for calls with a speaker on each. Separate channels count "
        "as a recording each.",
    },
    "subtitle_channels": {
        "type": "boolean",
        "default": False,
        "description": "srt and vtt: name the channel in each cue, with channels=separate.",
    },
    "replacements": {
        "type": "string",
        "description": "Phrases to replace in the text: a JSON object that maps wrong phrases to "
        "right ones, or lines of wrong=>right. At most 200 phrases of at most 64 characters.",
        "example": "云梯=>云T",
    },
    "hotwords": {
        "type": "string",
        "maxLength": 20000,
        "description": "Words that the model should prefer, if it supports hotwords: a JSON "
        "list, a "
        "JSON object that maps words to weights, or words separated by spaces, commas or line "
        "breaks; a word alone on its line may be followed by its weight. At most 100 words of at "
        "most 32 characters.",
        "examples": ['["阿里巴巴", "通义实验室"]'],
    },
    "keywords[]": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Words or phrases that the model should prefer: OpenAI's name for "
        "`hotwords`.",
    },
    "refine_keywords": {
        "type": "string",
        "maxLength": 20000,
        "description": "For the hybrid recognizer: a draft that contains one of these words is "
        "refined. A JSON list, or words separated by spaces or commas.",
    },
    "speaker_labels": {
        "type": "boolean",
        "default": False,
        "description": "Label who speaks: `speaker` in the segments and words of verbose_json, and "
        "cues of one speaker each in srt and vtt. The following fields and diarized_json imply it.",
    },
    **{
        name: {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_SPEAKERS,
            "description": f"{what} speakers in the recording, if that is known.",
        }
        for name, what in (
            ("num_speakers", "Number of"),
            ("min_speakers", "Least number of"),
            ("max_speakers", "Most"),
        )
    },
    "known_speaker_names[]": {
        "type": "array",
        "items": {"type": "string", "maxLength": MAX_NAME_CHARS},
        "maxItems": MAX_KNOWN_SPEAKERS,
        "description": "Names of speakers whose voices are in known_speaker_references[]; their "
        "labels are these names.",
    },
    "known_speaker_references[]": {
        "type": "array",
        "items": {"type": "string"},
        "maxItems": MAX_KNOWN_SPEAKERS,
        "description": f"For each name a data URL in base64 with {MIN_REFERENCE_S:g} to "
        f"{MAX_REFERENCE_S:g} s of the voice, in any format of `file`.",
    },
    **subtitle_field_schemas(),
    "subtitle_speakers": {
        "type": "boolean",
        "default": False,
        "description": "srt and vtt: begin each cue with the label of its speaker, as `A: ` in srt "
        "and as the voice tag `<v A>` in vtt. Implies speaker_labels.",
    },
}

_JSON_FIELDS = {
    name.removesuffix("[]"): field for name, field in FORM_FIELDS.items() if name != "file"
}

REQUEST_SCHEMAS: dict[str, Any] = {
    "TranscriptionForm": {
        "title": "TranscriptionForm",
        "type": "object",
        "required": ["model"],
        "properties": FORM_FIELDS,
    },
    "TranscriptionOfUrl": {
        "title": "TranscriptionOfUrl",
        "type": "object",
        "required": ["model", "audio_url"],
        "properties": _JSON_FIELDS,
    },
}

PROTECTED: dict[str, Any] = {"security": [{"apiKey": []}, {}]}
"""For routes that require an API key where authentication is on."""

TRANSCRIPTION_REQUEST: dict[str, Any] = {
    **PROTECTED,
    "parameters": [
        {
            "name": TIMEOUT_HEADER,
            "in": "header",
            "schema": {"type": "number", "exclusiveMinimum": 0},
            "description": "Deadline of the request, in seconds from its arrival.",
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
    "apiKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "Required if the service uses API keys.",
    }
}


def document(
    generated: dict[str, Any], requests: Mapping[str, Any], answers: Mapping[str, Any]
) -> dict[str, Any]:
    """Completes the document that FastAPI has generated.

    FastAPI lists a 422 for each route with a path parameter; such a parameter never fails here.

    Args:
        generated: it is changed.
        requests: further schemas of requests.
        answers: further schemas of responses.
    """
    for path, operations in generated["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            for status, response in operation["responses"].items():
                response["headers"] = describe_headers(int(status), kind_of(path))
    generated["components"] = {
        "schemas": {**REQUEST_SCHEMAS, **requests, **component_schemas(), **answers},
        "securitySchemes": SECURITY_SCHEMES,
    }
    return generated
