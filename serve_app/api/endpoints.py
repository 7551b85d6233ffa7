"""From an error to a response and a log line, for the routes of jobs, uploads and usage."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from serve_app.api.auth import caller_of
from serve_app.api.errors import STATUS_OF, error_response, forget_frames, internal_error_response
from serve_app.api.methods import path_of
from serve_app.api.request_log import request_id_of
from serve_app.core.errors import ParaserveError

_CLIENT_CLOSED_REQUEST = 499
_FIRST_SERVER_ERROR = 500


@dataclass(slots=True)
class EndpointLog:
    """The content of the log line; never audio, text, metadata or a URL.

    Attributes:
        request_id: the caller's or a new one.
        key: name of the caller's key.
        route: what was asked for, such as "create job".
        subject: id of the job or upload; "" if it never became known.
        num_bytes: of the recording that came with it.
        status: of the answer.
        code: of its error.
        at_end: whether the line is written by the response itself, at its end.
    """

    request_id: str
    key: str
    route: str
    subject: str = ""
    num_bytes: int = 0
    status: int = 0
    code: str | None = None
    at_end: bool = False
    _started: float = field(default_factory=time.monotonic)

    def write(self, logger: logging.Logger) -> None:
        logger.info(
            "job request",
            extra={
                "paraserve_request_id": self.request_id,
                "key": self.key,
                "route": self.route,
                "subject": self.subject,
                "num_bytes": self.num_bytes,
                "status": self.status,
                "code": self.code,
                "duration_s": round(time.monotonic() - self._started, 4),
            },
        )

    def mark_departed(self) -> None:
        self.status, self.code = _CLIENT_CLOSED_REQUEST, "client_disconnected"


Work = Callable[[Request, EndpointLog], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


class Endpoints:
    """Makes endpoints of functions that raise errors.

    Args:
        logger: gets one line per request.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def of(self, route: str, work: Work) -> Endpoint:
        """Returns an endpoint.

        Args:
            route: what it does, for the log.
            work: answers a request.
        """

        async def endpoint(request: Request) -> Response:
            log = EndpointLog(request_id_of(request), caller_of(request).name, route)
            try:
                response = await self._answer(work, request, log)
            except asyncio.CancelledError:
                # Ray Serve cancels a request whose caller has disconnected.
                log.mark_departed()
                log.write(self._logger)
                raise
            if not log.at_end:
                log.status = response.status_code
                log.write(self._logger)
            return response

        return endpoint

    async def _answer(self, work: Work, request: Request, log: EndpointLog) -> Response:
        try:
            return await work(request, log)
        except ParaserveError as error:
            log.code = error.code
            if STATUS_OF[type(error)] >= _FIRST_SERVER_ERROR:
                self._logger.error(
                    "request failed",
                    extra={"paraserve_request_id": log.request_id, "error": str(error)},
                )
            response: Response = error_response(error, path_of(request.scope))
            forget_frames(error)
        except ClientDisconnect as error:
            log.mark_departed()
            response = Response(status_code=_CLIENT_CLOSED_REQUEST)
            forget_frames(error)
        except Exception as error:
            self._logger.exception(
                "request failed unexpectedly", extra={"paraserve_request_id": log.request_id}
            )
            log.code = "internal_error"
            response = internal_error_response()
            forget_frames(error)
        return response
