"""Requests that are wrong; their callers must change them."""

from __future__ import annotations

from serve_app.core.errors.root import ParaserveError


class RequestError(ParaserveError):
    """The request is wrong; the caller must change it."""

    code = "invalid_request"


class InvalidParameter(RequestError):
    """A form field or query parameter has a value that is not accepted.

    Its reason is the predicate of a sentence about the parameter: "must be given once".
    """

    code = "invalid_parameter"

    def __init__(self, param: str, reason: str) -> None:
        super().__init__(param, reason)

    @property
    def param(self) -> str:
        return str(self.args[0])

    def __str__(self) -> str:
        return f"{self.args[0]} {self.args[1]}"


class MalformedBody(RequestError):
    """The body is not what its headers say; the caller must fix its HTTP client."""

    code = "malformed_body"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)

    def __str__(self) -> str:
        return f"the request body cannot be read: {self.args[0]}"


class ModelNotFound(RequestError):
    """The requested model is not served here; the caller must pick another."""

    code = "model_not_found"

    def __init__(self, model: str, served: str) -> None:
        super().__init__(model, served)

    def __str__(self) -> str:
        return f"model {self.args[0]!r} is not served here; served: {self.args[1]}"


class StageNotDeployed(RequestError):
    """The request wants a stage that this deployment was started without."""

    code = "stage_not_deployed"

    def __init__(self, stage: str, deployed: str) -> None:
        super().__init__(stage, deployed)

    def __str__(self) -> str:
        return f"stage {self.args[0]!r} is not deployed here; deployed: {self.args[1]}"


class Unauthenticated(RequestError):
    """There is no API key, or none that is known; the caller must send its own."""

    code = "invalid_api_key"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)

    def __str__(self) -> str:
        return f"{self.args[0]}; send it as the header 'Authorization: Bearer psk_...'"


class KeyNotAllowed(RequestError):
    """The API key is disabled or has expired; its owner must get another."""

    code = "key_not_allowed"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)

    def __str__(self) -> str:
        return f"the API key {self.args[0]!r} {self.args[1]}"


class UrlNotAllowed(RequestError):
    """`audio_url` leads where this service does not fetch from; the caller must upload."""

    code = "url_not_allowed"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)

    def __str__(self) -> str:
        return f"audio_url is not allowed: {self.args[0]}"


class UrlFetchFailed(RequestError):
    """`audio_url` could not be fetched; the caller must check that it can be."""

    code = "url_fetch_failed"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)

    def __str__(self) -> str:
        return f"audio_url could not be fetched: {self.args[0]}"


class UploadTooLarge(RequestError):
    """The upload has more bytes than the limit; the caller must send less."""

    code = "upload_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)

    def __str__(self) -> str:
        limit = int(str(self.args[0]))
        return f"the upload is larger than the limit of {limit} bytes ({limit / 2**20:.1f} MiB)"


class UploadTooSlow(RequestError):
    """The body arrives too slowly to wait for it; the caller must send it faster."""

    code = "upload_too_slow"

    def __init__(self, min_bytes_per_s: float) -> None:
        super().__init__(min_bytes_per_s)

    def __str__(self) -> str:
        return (
            "the request body arrives too slowly: uploads must reach "
            f"{float(str(self.args[0])):g} bytes per second on average"
        )


class RequestNotAcceptable(RequestError):
    """The request's head breaks a bound or HTTP's own rules; the caller must change it."""

    code = "invalid_request_head"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)

    def __str__(self) -> str:
        return str(self.args[0])


class HeadersTooLarge(RequestNotAcceptable):
    """The request has too many or too long headers; the caller must send less."""

    code = "headers_too_large"


class UriTooLong(RequestNotAcceptable):
    """The request's path and query are too long; the caller must shorten them."""

    code = "uri_too_long"


class MethodNotAllowed(RequestNotAcceptable):
    """The request's method is none that is known here; the caller must use another."""

    code = "method_not_allowed"


class HostNotAllowed(RequestNotAcceptable):
    """The Host header names none of the service's hosts; the caller must use one of those."""

    code = "host_not_allowed"
