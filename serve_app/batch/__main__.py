"""A batch job's entry point: `python -m serve_app.batch SOURCE OUTPUT`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from serve_app.batch.arguments import parse_arguments
from serve_app.batch.job import BatchJob, JobOrder
from serve_app.batch.job_status import ExitCode
from serve_app.batch.report_data import BatchReport
from serve_app.batch.session import Stopped, exit_deadline
from serve_app.batch.uris import UnusableUri
from serve_app.core.errors import ConfigurationError, ManifestError, ParaserveError
from serve_app.settings import load_settings

_EXIT_LIMIT_S = 10.0
"""Longest time from SIGTERM to the end of the process."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 success, 1 job failed, 2 usage error, 3 some recordings failed."""
    options = parse_arguments(arguments, __doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        settings = load_settings(options.profile, options.set)
        accepts = options.accept_failures
        if accepts is None:
            accepts = settings.batch.accept_failures
        order = JobOrder(
            options.source,
            options.output,
            options.stages,
            options.formats,
            options.itn,
            options.retry_failed,
        )
        with exit_deadline(_EXIT_LIMIT_S):
            report = BatchJob(settings, order).run()
    except (ConfigurationError, ValidationError, ManifestError, UnusableUri) as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.USAGE
    except ParaserveError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.FAILED
    except Stopped:
        print("stopped; run the same command to resume", file=sys.stderr)
        return ExitCode.FAILED
    except Exception:
        logging.getLogger(__name__).exception("the job failed; run the same command to resume")
        return ExitCode.FAILED
    totals = report.totals
    print(
        f"{totals.num_finished} of {totals.num_recordings} recordings done, "
        f"{totals.num_failed} failed; {totals.audio_s / 3600:.2f} h of audio"
    )
    return exit_code_of(report, accept_failures=accepts)


def exit_code_of(report: BatchReport, *, accept_failures: bool) -> ExitCode:
    """Returns the exit code of a job that ran to its end.

    Args:
        report: of the job.
        accept_failures: ignore permanent failures. Failures that another run would retry
            still count.
    """
    failures = report.failures
    if accept_failures:
        failures = tuple(each for each in failures if not each.permanent)
    return ExitCode.SOME_RECORDINGS_FAILED if failures else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
