from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from serve_app.core.errors import CorruptAudio
from serve_app.deployments.client_errors import ClientErrorFilter, quiet_client_errors


@pytest.fixture
def serve_log() -> Iterator[io.StringIO]:
    """What a replica's own logger writes."""
    logger = logging.getLogger("ray.serve")
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    level, filters = logger.level, list(logger.filters)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.filters = []
    yield written
    logger.removeHandler(handler)
    logger.setLevel(level)
    logger.filters = filters


def fail(error: Exception, times: int = 1) -> None:
    """Logs as Serve does when a replica's method raises."""
    for _ in range(times):
        try:
            raise error
        except Exception:
            logging.getLogger("ray.serve").exception("Request failed.")


def test_client_error_is_logged_as_one_line(serve_log: io.StringIO) -> None:
    quiet_client_errors()
    quiet_client_errors()

    fail(CorruptAudio("bad"))

    assert serve_log.getvalue() == "INFO request refused: corrupt_audio\n"


def test_other_errors_keep_their_stack(serve_log: io.StringIO) -> None:
    quiet_client_errors()

    fail(ZeroDivisionError("x"))

    assert serve_log.getvalue().startswith("ERROR Request failed.\nTraceback")


def test_a_thousand_bad_files_are_a_few_lines(serve_log: io.StringIO) -> None:
    now = [0.0]
    logging.getLogger("ray.serve").addFilter(ClientErrorFilter(lambda: now[0]))

    fail(CorruptAudio("bad"), times=1000)
    assert len(serve_log.getvalue().splitlines()) == 20
    now[0] = 11.0
    fail(CorruptAudio("bad"))

    assert len(serve_log.getvalue().splitlines()) == 21


def test_a_higher_log_level_is_kept(serve_log: io.StringIO) -> None:
    quiet_client_errors()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)

    fail(CorruptAudio("bad"))

    assert serve_log.getvalue() == ""
