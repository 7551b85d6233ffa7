"""HTTP status and body of each error.

Source of the body: OpenAI's API reference, "Error codes" (an object `error` with
message, type, param and code).
"""

from __future__ import annotations

import math
import traceback

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serve_app.api.methods import allowed_methods, path_of
from serve_app.api.response_models import ErrorAnswer, ErrorType
from serve_app.core import errors, job_errors, live_errors

# An unusable recording is a 400, as in OpenAI's API, whose clients raise `BadRequestError`;
# `code` names the fault.
STATUS_OF: dict[type[errors.ParaserveError], int] = {
    errors.ParaserveError: 500,
    errors.RequestError: 400,
    errors.InvalidParameter: 400,
    errors.MalformedBody: 400,
    errors.ModelNotFound: 404,
    errors.StageNotDeployed: 400,
    errors.Unauthenticated: 401,
    errors.KeyNotAllowed: 403,
    errors.UrlNotAllowed: 403,
    errors.UrlFetchFailed: 400,
    errors.RequestNotAcceptable: 400,
    errors.MethodNotAllowed: 405,
    errors.HeadersTooLarge: 431,
    errors.UriTooLong: 414,
    errors.HostNotAllowed: 421,
    errors.UploadTooLarge: 413,
    errors.UploadTooSlow: 408,
    errors.AudioError: 400,
    errors.EmptyUpload: 400,
    errors.UnknownAudioFormat: 400,
    errors.CorruptAudio: 400,
    errors.TruncatedAudio: 400,
    errors.UnsupportedAudioLayout: 400,
    errors.InvalidSamples: 400,
    errors.AudioTooShort: 400,
    errors.AudioTooComplex: 400,
    errors.AudioTooFragmented: 400,
    errors.AudioTooLong: 413,
    errors.ServiceError: 500,
    errors.NotReady: 503,
    errors.KeysUnavailable: 503,
    errors.ShuttingDown: 503,
    errors.StartFailed: 500,
    errors.ModelUnavailable: 503,
    errors.Overloaded: 429,
    errors.StorageFull: 503,
    errors.DeadlineExceeded: 504,
    errors.RecognitionFailed: 500,
    errors.SpeakersUnavailable: 503,
    live_errors.NothingToCommit: 400,
    live_errors.TooMuchAudio: 400,
    live_errors.UnknownEvent: 400,
    live_errors.OriginNotAllowed: 403,
    live_errors.EventsNotRead: 400,
    live_errors.SessionIdle: 408,
    live_errors.SessionTooLong: 408,
    job_errors.JobNotFound: 404,
    job_errors.JobNotFinished: 409,
    job_errors.JobWithoutResult: 409,
    job_errors.IdempotencyConflict: 409,
    job_errors.NoWebhook: 409,
    job_errors.UploadNotFound: 404,
    job_errors.UploadConflict: 409,
    job_errors.UploadIncomplete: 409,
    job_errors.TusVersionNotSupported: 412,
    job_errors.PartTypeNotSupported: 415,
    job_errors.TooManyUploads: 429,
    job_errors.QueueFull: 429,
    job_errors.QuotaExceeded: 429,
    job_errors.StoreUnavailable: 503,
    errors.ConfigurationError: 500,
    errors.PackError: 500,
    errors.PackNotFound: 500,
    errors.PackIncomplete: 500,
    errors.PackCorrupt: 500,
    errors.PackFetchFailed: 500,
    errors.DeviceUnavailable: 500,
    # Only the operator's tools raise these.
    errors.TraceError: 500,
    errors.CostsError: 500,
    errors.ManifestError: 500,
    errors.ClusterError: 500,
    errors.ClusterRefused: 500,
}

_RETRIED_STATUSES = frozenset({429, 503})
_NOT_READY_RETRY_S = 5
_MAX_MESSAGE_CHARS = 1000
_MAX_PARAM_CHARS = 128
_CODE_OF_STATUS = {404: "not_found", 405: "method_not_allowed"}


def error_body(error: errors.ParaserveError) -> ErrorAnswer:
    """Returns OpenAI's error object for one of our errors."""
    status = STATUS_OF[type(error)]
    param: str | None = None
    if isinstance(error, errors.InvalidParameter):
        param = error.param
    elif isinstance(error, errors.AudioError | errors.UploadTooLarge):
        param = "file"
    elif isinstance(error, errors.UrlNotAllowed | errors.UrlFetchFailed):
        param = "audio_url"
    elif isinstance(error, errors.ModelNotFound):
        param = "model"
    elif isinstance(error, errors.StageNotDeployed):
        param = "stages"
    return _body(str(error), _type_of(status), param, error.code)


def error_response(error: errors.ParaserveError, path: str = "") -> JSONResponse:
    """Returns the response that tells of an error.

    Args:
        error: what went wrong.
        path: of the request, without the prefix of the service; for `Allow`.
    """
    headers: dict[str, str] = {}
    status = STATUS_OF[type(error)]
    if isinstance(error, job_errors.QuotaExceeded):
        # OpenAI's clients obey it; a Retry-After of weeks would make others sleep.
        headers["x-should-retry"] = "false"
    elif isinstance(error, errors.Overloaded | errors.StorageFull):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    elif status in _RETRIED_STATUSES:
        headers["Retry-After"] = str(_NOT_READY_RETRY_S)
    elif isinstance(error, errors.Unauthenticated | errors.KeyNotAllowed):
        headers["WWW-Authenticate"] = 'Bearer realm="paraserve"'
    elif isinstance(error, errors.UploadTooSlow):
        # The rest of the body is not read.
        headers["Connection"] = "close"
    elif isinstance(error, errors.MethodNotAllowed):
        headers["Allow"] = allowed_methods(path)
    return JSONResponse(error_body(error), status, headers)


def internal_error_response() -> JSONResponse:
    """Returns the response to an internal failure; details are in the log only."""
    message = (
        "the request failed because of an internal error; the service's log has details "
        "under its request id"
    )
    return JSONResponse(_body(message, _type_of(500), None, "internal_error"), 500)


async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Converts the framework's errors (unknown path, wrong method) to the same body."""
    if not isinstance(error, HTTPException):
        return internal_error_response()
    status = error.status_code
    message = str(error.detail)
    if status == 404:
        message = f"no such path: {request.url.path}"
    elif status == 405:
        message = f"{request.method} is not allowed on {request.url.path}"
    code = _CODE_OF_STATUS.get(status, "http_error")
    # The framework lists the methods of one route only, of several with the same path.
    headers = {"Allow": allowed_methods(path_of(request.scope))} if status == 405 else error.headers
    return JSONResponse(_body(message, _type_of(status), None, code), status, headers)


async def on_validation_error(request: Request, error: Exception) -> JSONResponse:
    """Converts the framework's validation errors to the same body."""
    problems = error.errors() if isinstance(error, RequestValidationError) else ()
    first = next(iter(problems), {"loc": ("request",), "msg": "is not valid"})
    param = str(first["loc"][-1]) if first["loc"] else "request"
    return error_response(errors.InvalidParameter(param, str(first["msg"])))


def forget_frames(error: BaseException) -> None:
    """Clears the frames of an error that has been reported.

    Errors that pass through tasks leave reference cycles of frames and tracebacks, which would
    keep the recording on disk until the next garbage collection.
    """
    seen: set[int] = set()
    chain: BaseException | None = error
    while chain is not None and id(chain) not in seen:
        seen.add(id(chain))
        traceback.clear_frames(chain.__traceback__)
        chain = chain.__cause__ or chain.__context__


def _type_of(status: int) -> ErrorType:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def _body(message: str, kind: ErrorType, param: str | None, code: str) -> ErrorAnswer:
    return {
        "error": {
            "message": _plain(message, _MAX_MESSAGE_CHARS),
            "type": kind,
            "param": None if param is None else _plain(param, _MAX_PARAM_CHARS),
            "code": code,
        }
    }


def _plain(text: str, max_chars: int) -> str:
    """Returns text that can be sent; quoted input may be long or invalid Unicode."""
    if len(text) > max_chars:
        text = f"{text[: max_chars - 1]}…"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
