"""Keeps what clients did wrong from filling the logs of replicas.

Ray Serve logs whatever leaves a replica's method as an error with its whole stack (Ray 2.60,
serve/_private/replica.py, `_handle_errors_and_metrics`). For a file that is no audio nobody
who runs the service has to act, and anybody can send thousands of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from serve_app.core.errors import DeadlineExceeded, Overloaded, RequestError

_SERVE_LOGGER = "ray.serve"
_EXPECTED = (RequestError, DeadlineExceeded, Overloaded)
_MAX_LINES = 20
_PERIOD_S = 10.0


class ClientErrorFilter(logging.Filter):
    """Replaces tracebacks of client errors by one INFO line each, at a limited rate.

    Args:
        clock: in s.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._period_began_s = clock()
        self._num_lines = 0
        self._num_left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether to write the record; always True if it is not a client error."""
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if not isinstance(error, _EXPECTED):
            return True
        left_out = self._left_out_before()
        if left_out is None:
            return False
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg, record.args = f"request refused: {error.code}", ()
        record.code = error.code
        if left_out:
            record.num_left_out = left_out
        return logging.getLogger(_SERVE_LOGGER).isEnabledFor(logging.INFO)

    def _left_out_before(self) -> int | None:
        """Returns how many lines were dropped since the last one; None to drop this one."""
        if self._clock() - self._period_began_s >= _PERIOD_S:
            self._period_began_s, self._num_lines = self._clock(), 0
        if self._num_lines >= _MAX_LINES:
            self._num_left_out += 1
            return None
        self._num_lines += 1
        left_out, self._num_left_out = self._num_left_out, 0
        return left_out


def quiet_client_errors() -> None:
    """Installs the filter in this process, once."""
    logger = logging.getLogger(_SERVE_LOGGER)
    if not any(isinstance(one, ClientErrorFilter) for one in logger.filters):
        logger.addFilter(ClientErrorFilter())
