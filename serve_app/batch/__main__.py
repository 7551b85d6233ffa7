"""A batch job's entry point: `python -m serve_app.batch SOURCE OUTPUT`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from serve_app.batch.arguments import parse_arguments
from serve_app.batch.job import BatchJob, JobOrder
from serve_app.batch.job_status import ExitCode
from serve_app.batch.progress_display import ProgressBar
from serve_app.batch.report_data import BatchReport
from serve_app.batch.session import Stopped, exit_deadline
from serve_app.batch.storage import storage_problem
from serve_app.batch.uris import UnusableUri, plain_uri
from serve_app.core.errors import ConfigurationError, ManifestError, ParaserveError
from serve_app.settings import Settings, load_settings

_RESUME = "Run the same command to continue"
_EXIT_LIMIT_S = 10.0
"""Longest time from SIGTERM to the end of the process."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a job.

    Returns:
        The exit code: 0 success, 1 job failed, 2 usage error, 3 some recordings failed, 130
        interrupted by Ctrl-C.
    """
    options = parse_arguments(arguments, __doc__)
    console = Console(stderr=True)
    handler = _ConsoleHandler(console) if console.is_terminal else logging.StreamHandler(sys.stderr)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    try:
        settings = load_settings(options.profile, _assignments(options))
        with exit_deadline(_EXIT_LIMIT_S):
            report = _run(settings, _order(options), console)
    except (ConfigurationError, ValidationError, ManifestError, UnusableUri) as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.USAGE
    except ParaserveError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.FAILED
    except (Stopped, KeyboardInterrupt) as stop:
        print(f"stopped; finished recordings are kept. {_RESUME}", file=sys.stderr)
        return ExitCode.FAILED if isinstance(stop, Stopped) else ExitCode.INTERRUPTED
    except Exception as error:
        problem = storage_problem(error)
        if problem is None:
            logging.getLogger(__name__).exception("the job failed. %s", _RESUME)
        else:
            print(f"error: {problem}. {_RESUME}", file=sys.stderr)
        return ExitCode.FAILED
    _print_end(report, options.output)
    accepts = options.accept_failures
    if accepts is None:
        accepts = settings.batch.accept_failures
    return exit_code_of(report, accept_failures=accepts)


def _assignments(options: argparse.Namespace) -> list[str]:
    named = {"layout": options.layout, "channels": options.channels}
    own = [f"batch.{name}={value}" for name, value in named.items() if value]
    return [*(options.set or ()), *own]


def _order(options: argparse.Namespace) -> JobOrder:
    return JobOrder(
        options.source,
        options.output,
        options.stages,
        options.formats,
        options.itn,
        options.retry_failed,
        options.speakers,
    )


def _run(settings: Settings, order: JobOrder, console: Console) -> BatchReport:
    """Shows a bar on a terminal, and lines of JSON elsewhere."""
    if not console.is_terminal:
        return BatchJob(settings, order).run()
    often = settings.batch.model_copy(update={"log_interval_s": 1.0})
    with ProgressBar(console) as bar:
        return BatchJob(settings.model_copy(update={"batch": often}), order, bar.show).run()


class _ConsoleHandler(logging.Handler):
    """Writes log lines above the progress bar."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(Text(self.format(record)))


def _print_end(report: BatchReport, output: str) -> None:
    totals = report.totals
    print(
        f"{totals.num_finished:,} of {totals.num_recordings:,} recordings done, "
        f"{totals.num_failed:,} failed; {totals.audio_s / 3600:.2f} h of audio"
    )
    root = plain_uri(output).rstrip("/")
    print(f"transcripts  {root}/transcripts/")
    print(f"report       {root}/report.html")
    if report.failures:
        print(f"failures     {root}/failures.jsonl")
        num_permanent = sum(each.permanent for each in report.failures)
        if num_permanent:
            print(f"{num_permanent:,} of the failures are retried only with --retry-failed")


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
