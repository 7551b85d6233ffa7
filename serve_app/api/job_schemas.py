"""The routes of jobs, uploads and usage in the OpenAPI document."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve_app.api import job_fields, response_models, resumable
from serve_app.api.job_requests import RESULT_FIELDS
from serve_app.api.openapi import FORM_FIELDS, PROTECTED
from serve_app.api.response_schemas import (
    EVERYWHERE,
    TRANSCRIPT_CONTENT,
    Responses,
    errors,
    json_answer,
    reference,
    schemas_of,
)
from serve_app.jobs.job_json import JobJson

_NAMED: dict[str, Any] = {
    "JobJson": JobJson,
    "JobList": response_models.JobList,
    "JobRemoval": response_models.JobRemoval,
    "Upload": response_models.Upload,
    "Usage": response_models.Usage,
}
# In clients that are generated from the document, types need no "Json".
_SCHEMA_NAMES = {
    "JobJson": "Job",
    "ProgressJson": "JobProgress",
    "WebhookJson": "JobWebhook",
    "ErrorJson": "JobError",
}

JOB_ONLY_FIELDS: dict[str, dict[str, Any]] = {
    job_fields.UPLOAD_ID: {
        "type": "string",
        "description": "A finished resumable upload that is the recording, in place of `file`. "
        "The job takes it: it cannot be used again.",
    },
    job_fields.WEBHOOK_URL: {
        "type": "string",
        "format": "uri",
        "description": "https URL that is told of the job's final state, signed as Standard "
        "Webhooks says; the key needs a webhook secret.",
    },
    job_fields.METADATA: {
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": job_fields.MAX_VALUE_CHARS},
        "maxProperties": job_fields.MAX_PAIRS,
        "description": f"Your own data: at most {job_fields.MAX_PAIRS} pairs of at most "
        f"{job_fields.MAX_KEY_CHARS} and {job_fields.MAX_VALUE_CHARS} characters. In a form, pass "
        "JSON or metadata[KEY].",
    },
    job_fields.PRIORITY: {
        "type": "string",
        "enum": ["low", "normal", "high"],
        "default": "normal",
        "description": "Order among the jobs of the same key.",
    },
    job_fields.EXPIRES_AFTER: {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": job_fields.MAX_EXPIRES_AFTER_S,
        "description": "Seconds within which the job has to start; else it expires.",
    },
}

_FORM = {
    **{name: schema for name, schema in FORM_FIELDS.items() if name != "stream"},
    **JOB_ONLY_FIELDS,
}

REQUEST_SCHEMAS: dict[str, Any] = {
    "JobForm": {
        "title": "JobForm",
        "type": "object",
        "required": ["model"],
        "properties": _FORM,
    },
    "JobOfUrl": {
        "title": "JobOfUrl",
        "type": "object",
        "required": ["model"],
        "anyOf": [{"required": ["audio_url"]}, {"required": [job_fields.UPLOAD_ID]}],
        "properties": {
            name.removesuffix("[]"): schema for name, schema in _FORM.items() if name != "file"
        },
    },
}


def _path_parameter(name: str, what: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string"},
        "description": what,
    }


def _query_parameter(name: str, schema: dict[str, Any], what: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": what}


def _header_parameter(
    name: str, schema: dict[str, Any], what: str, required: bool = False
) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": required,
        "schema": schema,
        "description": what,
    }


_JOB_ID = _path_parameter("job_id", "Id of the job.")
_UPLOAD_ID = _path_parameter("upload_id", "Id of the upload.")
_BYTES = {"type": "integer", "minimum": 0}
_TUS = _header_parameter(
    "Tus-Resumable", {"type": "string", "const": resumable.VERSION}, "Version of tus."
)
_PART = {
    "required": True,
    "content": {resumable.PART_TYPE: {"schema": {"type": "string", "format": "binary"}}},
}

_CREATION: dict[str, Any] = {
    **PROTECTED,
    "parameters": [
        _header_parameter(
            job_fields.IDEMPOTENCY_HEADER,
            {"type": "string", "minLength": 1, "maxLength": job_fields.MAX_IDEMPOTENCY_CHARS},
            "Your name for this job: a repeated request with it returns the same job.",
        )
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": reference("JobForm")},
            "application/json": {"schema": reference("JobOfUrl")},
        },
    },
}
_LISTING: dict[str, Any] = {
    **PROTECTED,
    "parameters": [
        _query_parameter(
            "status",
            {"type": "string", "examples": ["queued,running"]},
            "Only jobs of these statuses, comma-separated or repeated.",
        ),
        _query_parameter(
            "limit",
            {
                "type": "integer",
                "minimum": 1,
                "maximum": job_fields.MAX_PAGE,
                "default": job_fields.DEFAULT_PAGE,
            },
            "Most jobs of the page.",
        ),
        _query_parameter("after", {"type": "string"}, "Id of the last job of the page before."),
    ],
}
_ONE_JOB: dict[str, Any] = {**PROTECTED, "parameters": [_JOB_ID]}
_RESULT: dict[str, Any] = {
    **PROTECTED,
    "parameters": [
        _JOB_ID,
        *(
            _query_parameter(
                name,
                {key: value for key, value in schema.items() if key != "description"},
                f"{schema['description']} By default as the job was created.",
            )
            for name, schema in FORM_FIELDS.items()
            if name.removesuffix("[]") in RESULT_FIELDS
        ),
    ],
}
_UPLOAD_OPTIONS = PROTECTED
_UPLOAD_CREATION: dict[str, Any] = {
    **PROTECTED,
    "parameters": [
        _TUS,
        _header_parameter("Upload-Length", _BYTES, "Size of the recording in bytes.", True),
        _header_parameter(
            "Upload-Metadata",
            {"type": "string"},
            "Your own data: pairs of a key and a value in base64, comma-separated.",
        ),
    ],
    "requestBody": {**_PART, "required": False},
}
_ONE_UPLOAD: dict[str, Any] = {**PROTECTED, "parameters": [_UPLOAD_ID, _TUS]}
_UPLOAD_PART: dict[str, Any] = {
    **PROTECTED,
    "parameters": [
        _UPLOAD_ID,
        _TUS,
        _header_parameter("Upload-Offset", _BYTES, "Where the part begins, in bytes.", True),
    ],
    "requestBody": _PART,
}
_USAGE: dict[str, Any] = {
    **PROTECTED,
    "parameters": [
        _query_parameter(
            "month",
            {"type": "string", "pattern": r"^\d{4}-(0[1-9]|1[0-2])$"},
            "As 2026-11, in UTC; by default the present one.",
        )
    ],
}

_ALWAYS = (401, 403, 405, *EVERYWHERE)

_CREATION_RESPONSES: Responses = {
    **json_answer("Job", "The job; it, its recording and its fields are stored.", 202),
    **errors(404, 408, 409, 413, 429, 504, *_ALWAYS),
}
_LIST_RESPONSES: Responses = {
    **json_answer("JobList", "The jobs of the page."),
    **errors(404, *_ALWAYS),
}
_JOB_RESPONSES: Responses = {**json_answer("Job", "The job."), **errors(404, *_ALWAYS)}
_REDELIVERY_RESPONSES: Responses = {**_JOB_RESPONSES, **errors(409)}
_REMOVAL_RESPONSES: Responses = {
    **json_answer("JobRemoval", "The job is removed."),
    **errors(404, *_ALWAYS),
}
_RESULT_RESPONSES: Responses = {
    200: {
        "description": "The transcript, in the requested format.",
        "content": TRANSCRIPT_CONTENT,
    },
    **errors(404, 409, *_ALWAYS),
}
_EVENT_RESPONSES: Responses = {
    200: {
        "description": "An event `job` with the job as its data, now and after each change, until "
        "the final state.",
        "content": {"text/event-stream": {"schema": reference("JobEvent")}},
    },
    **errors(404, 429, *_ALWAYS),
}
_UPLOAD_OPTIONS_RESPONSES: Responses = {
    204: {"description": "What the service supports of tus."},
    **errors(*_ALWAYS),
}
_UPLOAD_CREATION_RESPONSES: Responses = {
    201: {"description": "The upload, in the header Location."},
    **errors(408, 409, 412, 413, 415, 429, *_ALWAYS),
}
_UPLOAD_RESPONSES: Responses = {
    **json_answer("Upload", "The upload; HEAD is answered with the headers alone."),
    **errors(404, 412, *_ALWAYS),
}
_PART_RESPONSES: Responses = {
    204: {"description": "The part is stored."},
    **errors(404, 408, 409, 412, 413, 415, 429, *_ALWAYS),
}
_UPLOAD_REMOVAL_RESPONSES: Responses = {
    204: {"description": "The upload is removed."},
    **errors(404, 412, *_ALWAYS),
}
_USAGE_RESPONSES: Responses = {
    **json_answer("Usage", "What the caller's key has used."),
    **errors(*_ALWAYS),
}


@dataclass(frozen=True, slots=True)
class JobRoute:
    """A route as the document describes it.

    Attributes:
        method: in upper case.
        path: with its parameters in braces.
        summary: what it does.
        operation_id: its name in generated clients.
        request: parameters and body.
        responses: by status.
    """

    method: str
    path: str
    summary: str
    operation_id: str
    request: Mapping[str, Any]
    responses: Responses

    @property
    def tag(self) -> str:
        return self.path.split("/")[2]

    @property
    def shown_path(self) -> str:
        """The path as the pages of the documentation write it."""
        return re.sub(r"{[a-z_]+}", "ID", self.path)


_JOB, _UPLOAD = "/v1/jobs/{job_id}", "/v1/uploads/{upload_id}"

CREATE_JOB = JobRoute(
    "POST", "/v1/jobs", "Create a job", "createJob", _CREATION, _CREATION_RESPONSES
)
LIST_JOBS = JobRoute("GET", "/v1/jobs", "List jobs", "listJobs", _LISTING, _LIST_RESPONSES)
GET_JOB = JobRoute("GET", _JOB, "Show a job", "retrieveJob", _ONE_JOB, _JOB_RESPONSES)
DELETE_JOB = JobRoute("DELETE", _JOB, "Remove a job", "deleteJob", _ONE_JOB, _REMOVAL_RESPONSES)
GET_RESULT = JobRoute(
    "GET",
    f"{_JOB}/result",
    "Show a job's transcript",
    "retrieveJobResult",
    _RESULT,
    _RESULT_RESPONSES,
)
WATCH_JOB = JobRoute("GET", f"{_JOB}/events", "Watch a job", "watchJob", _ONE_JOB, _EVENT_RESPONSES)
CANCEL_JOB = JobRoute(
    "POST", f"{_JOB}/cancel", "Cancel a job", "cancelJob", _ONE_JOB, _JOB_RESPONSES
)
REDELIVER = JobRoute(
    "POST",
    f"{_JOB}/webhook",
    "Send a job's webhook again",
    "redeliverJobWebhook",
    _ONE_JOB,
    _REDELIVERY_RESPONSES,
)
DESCRIBE_UPLOADS = JobRoute(
    "OPTIONS",
    "/v1/uploads",
    "Show what of tus is supported",
    "describeUploads",
    _UPLOAD_OPTIONS,
    _UPLOAD_OPTIONS_RESPONSES,
)
CREATE_UPLOAD = JobRoute(
    "POST",
    "/v1/uploads",
    "Create an upload",
    "createUpload",
    _UPLOAD_CREATION,
    _UPLOAD_CREATION_RESPONSES,
)
GET_UPLOAD = JobRoute(
    "GET", _UPLOAD, "Show an upload", "retrieveUpload", _ONE_UPLOAD, _UPLOAD_RESPONSES
)
ADD_PART = JobRoute(
    "PATCH", _UPLOAD, "Add a part to an upload", "addUploadPart", _UPLOAD_PART, _PART_RESPONSES
)
DELETE_UPLOAD = JobRoute(
    "DELETE", _UPLOAD, "Remove an upload", "deleteUpload", _ONE_UPLOAD, _UPLOAD_REMOVAL_RESPONSES
)
GET_USAGE = JobRoute("GET", "/v1/usage", "Show usage", "getUsage", _USAGE, _USAGE_RESPONSES)

JOB_ROUTES = (
    CREATE_JOB,
    LIST_JOBS,
    GET_JOB,
    DELETE_JOB,
    GET_RESULT,
    WATCH_JOB,
    CANCEL_JOB,
    REDELIVER,
    DESCRIBE_UPLOADS,
    CREATE_UPLOAD,
    GET_UPLOAD,
    ADD_PART,
    DELETE_UPLOAD,
    GET_USAGE,
)

_JOB_EVENT: dict[str, Any] = {
    "title": "JobEvent",
    "description": "One event of a job's stream. Comments between events are heartbeats.",
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "enum": ["job", "error"]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"anyOf": [reference("Job"), reference("ErrorAnswer")]},
        },
    },
}


def answer_schemas() -> dict[str, Any]:
    """Returns the schemas of responses that these routes add to the OpenAPI document."""
    written = json.dumps(schemas_of(_NAMED))
    for name, shown in _SCHEMA_NAMES.items():
        written = written.replace(f'"{name}"', f'"{shown}"').replace(f"/{name}", f"/{shown}")
    return {**json.loads(written), "JobEvent": _JOB_EVENT}
