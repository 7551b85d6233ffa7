"""A batch job's entry point: `python -m serve_app.batch SOURCE OUTPUT`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from serve_app.batch.client import ExitCode
from serve_app.batch.job import BatchJob, JobOrder
from serve_app.batch.records import TEXT_FORMATS
from serve_app.batch.session import Stopped
from serve_app.core.errors import ConfigurationError, ManifestError, ParaserveError
from serve_app.core.stages import STAGES, Stage
from serve_app.settings import DEFAULT_PROFILE, load_settings
from serve_app.settings.batch import TextFormat


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 all done, 3 some recordings failed, 1 the job did, 2 usage."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        settings = load_settings(options.profile, options.set)
        order = JobOrder(
            options.source,
            options.output,
            options.stages,
            options.formats,
            options.itn,
            options.retry_failed,
        )
        totals = BatchJob(settings, order).run().totals
    except (ConfigurationError, ValidationError, ManifestError) as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.USAGE
    except ParaserveError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.FAILED
    except Stopped:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return ExitCode.FAILED
    except Exception:
        logging.getLogger(__name__).exception("the job failed; the same command goes on from here")
        return ExitCode.FAILED
    print(
        f"{totals.num_finished} of {totals.num_recordings} recordings done, "
        f"{totals.num_failed} failed; {totals.audio_s / 3600:.2f} h of audio"
    )
    return ExitCode.SOME_RECORDINGS_FAILED if totals.num_failed else ExitCode.DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serve_app.batch", description=__doc__)
    add = parser.add_argument
    add("source", help="manifest (JSONL, CSV), directory, glob or bucket prefix")
    add("output", help="directory or bucket prefix of the results")
    add("--profile", "-p", default=DEFAULT_PROFILE, help="built-in profile, or a YAML file")
    add("--stages", type=_stages, help="as vad,asr,punctuation; all by default")
    add("--formats", type=_formats, help="beside JSON, as srt,vtt,txt")
    add("--itn", action=argparse.BooleanOptionalAction, help="numbers in digits, or not")
    add("--retry-failed", action="store_true", help="try recordings again that were no good")
    add("--set", action="append", metavar="NAME=VALUE", help="a setting; may be repeated")
    return parser


def _stages(text: str) -> tuple[Stage, ...]:
    names = _names(text)
    if not names <= set(STAGES):
        raise argparse.ArgumentTypeError(f"stages are {', '.join(STAGES)}")
    return tuple(stage for stage in STAGES if stage in names)


def _formats(text: str) -> tuple[TextFormat, ...]:
    names = _names(text)
    if not names <= set(TEXT_FORMATS):
        raise argparse.ArgumentTypeError(f"formats are {', '.join(TEXT_FORMATS)}")
    return tuple(name for name in TEXT_FORMATS if name in names)


def _names(text: str) -> set[str]:
    return {name.strip() for name in text.split(",") if name.strip()}


if __name__ == "__main__":
    sys.exit(main())
