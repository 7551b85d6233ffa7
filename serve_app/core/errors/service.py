"""The service cannot answer now; its operator must act or its caller wait."""

from __future__ import annotations

from serve_app.core.errors.root import ParaserveError


class ServiceError(ParaserveError):
    """The service cannot answer now; the operator must act or the caller wait."""

    code = "service_error"


class NotReady(ServiceError):
    """A deployment has not warmed up yet; the caller should try again."""

    code = "not_ready"

    def __init__(self, waiting_for: str) -> None:
        super().__init__(waiting_for)

    def __str__(self) -> str:
        return f"the service is starting; waiting for: {self.args[0]}"


class ShuttingDown(ServiceError):
    """The service is being stopped; the caller should try again, elsewhere or later."""

    code = "shutting_down"

    def __init__(self) -> None:
        super().__init__()

    def __str__(self) -> str:
        return "the service is being stopped and takes no further requests; try again"


class StartFailed(ServiceError):
    """A deployment did not come up; the operator must read why and fix it."""

    code = "start_failed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)

    def __str__(self) -> str:
        return f"the application did not start: {self.args[0]}"


class ModelUnavailable(ServiceError):
    """A model could not be loaded; the operator must read why, the caller may retry.

    The reason is not in the message, which callers are shown: it may name paths.
    """

    code = "model_unavailable"

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(model, reason)

    @property
    def reason(self) -> str:
        """For the log."""
        return str(self.args[1])

    def __str__(self) -> str:
        return f"model {self.args[0]!r} cannot be loaded now; the service's log says why"


class Overloaded(ServiceError):
    """More work is waiting than the limits allow; the caller must retry later."""

    code = "overloaded"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(retry_after_s)

    @property
    def retry_after_s(self) -> float:
        return float(str(self.args[0]))

    def __str__(self) -> str:
        return f"the service is at its limit; retry after {self.retry_after_s:.0f} s"


class StorageFull(ServiceError):
    """The disk for uploads is full; the operator must make room, the caller retry."""

    code = "storage_full"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(retry_after_s)

    @property
    def retry_after_s(self) -> float:
        return float(str(self.args[0]))

    def __str__(self) -> str:
        return "the service has no room left to take in the recording"


class DeadlineExceeded(ServiceError):
    """The request did not finish within its deadline."""

    code = "deadline_exceeded"

    def __init__(self, limit_s: float) -> None:
        super().__init__(limit_s)

    def __str__(self) -> str:
        return f"the request did not finish within {float(str(self.args[0])):.1f} s"


class RecognitionFailed(ServiceError):
    """Every chunk of the request failed in the recogniser; the operator must look."""

    code = "recognition_failed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)

    def __str__(self) -> str:
        return f"the recording could not be recognised: {self.args[0]}"


class KeysUnavailable(ServiceError):
    """API keys cannot be checked; the operator must restore the keys file."""

    code = "keys_unavailable"

    def __str__(self) -> str:
        return "the service cannot check API keys now; its operator has to restore its keys file"
