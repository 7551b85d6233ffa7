"""The arguments of `python -m serve_app.batch`, parsed from its own or another command line."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, get_args

from serve_app.batch.records import NO_KNOWN_SPEAKERS, TEXT_FORMATS
from serve_app.core.records import STAGES, Stage
from serve_app.core.speakers import ANY_NUMBER
from serve_app.settings import DEFAULT_PROFILE
from serve_app.settings.batch import Layout, TextFormat

MODULE = "serve_app.batch"

_SHELL_OPERATORS = frozenset("();<>|&")


@dataclass(frozen=True, slots=True)
class JobPaths:
    """Source and output of a job."""

    source: str
    output: str


class _NotABatchCommand(Exception):
    """The arguments are not those of a batch job."""


class _QuietParser(argparse.ArgumentParser):
    """Raises on bad arguments, instead of printing and ending the process."""

    def error(self, message: str) -> NoReturn:
        raise _NotABatchCommand(message)


def parse_arguments(arguments: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    """Returns the options of the command line; ends the process if they are invalid."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=description)
    return _add_arguments(parser).parse_args(arguments)


def find_job_paths(command: str) -> JobPaths | None:
    """Returns source and output of a shell command that runs a batch job.

    Shell variables are not expanded. Text before the module name, unknown options and
    further commands in the same line are ignored.

    Returns:
        None if the command does not run a batch job.
    """
    arguments = _batch_arguments(command)
    if arguments is None:
        return None
    try:
        found, _ = _add_arguments(_QuietParser(add_help=False)).parse_known_args(arguments)
    except _NotABatchCommand:
        return None
    return JobPaths(found.source, found.output)


def _batch_arguments(command: str) -> list[str] | None:
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError:  # a quote that is not closed
        return None
    for i, word in enumerate(words[:-1]):
        if word == "-m" and words[i + 1] == MODULE:
            rest = words[i + 2 :]
            ends = (j for j, each in enumerate(rest) if each and set(each) <= _SHELL_OPERATORS)
            return rest[: next(ends, len(rest))]
    return None


def _add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    add = parser.add_argument
    add("source", help="manifest (JSONL, CSV), directory, glob or bucket prefix")
    add("output", help="directory or bucket prefix of the results")
    add(
        "--profile",
        "-p",
        default=DEFAULT_PROFILE,
        help="built-in profile, YAML file, or inline YAML as {...}",
    )
    add("--stages", type=_stages, help="stages to run, such as vad,asr,punctuation; all by default")
    add("--formats", type=_formats, help="formats to write beside JSON, such as srt,vtt,txt")
    add("--layout", choices=get_args(Layout), help="folders of a new output")
    add("--itn", action=argparse.BooleanOptionalAction, help="write numbers in digits")
    add(
        "--speakers",
        nargs="?",
        const=ANY_NUMBER,
        metavar="N",
        help="label who speaks; N is the number of speakers, or a range such as 2-4, if known",
    )
    # Otherwise it would be an abbreviation of --speakers.
    add("--speaker", type=_refuse_known_speaker, help=argparse.SUPPRESS)
    add("--channels", choices=("mix", "separate"), help="what to recognize of several channels")
    add("--retry-failed", action="store_true", help="retry recordings that failed permanently")
    add(
        "--accept-failures",
        action=argparse.BooleanOptionalAction,
        help="exit with 0 if all failures are permanent",
    )
    add("--set", action="append", metavar="NAME=VALUE", help="override a setting; may be repeated")
    return parser


def _refuse_known_speaker(text: str) -> NoReturn:
    raise argparse.ArgumentTypeError(NO_KNOWN_SPEAKERS)


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
