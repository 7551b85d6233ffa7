"""The arguments of `python -m serve_app.batch`, and how they are found in a command."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from serve_app.batch.records import TEXT_FORMATS
from serve_app.core.records import STAGES, Stage
from serve_app.settings import DEFAULT_PROFILE
from serve_app.settings.batch import TextFormat

MODULE = "serve_app.batch"

_SHELL_OPERATORS = frozenset("();<>|&")


@dataclass(frozen=True, slots=True)
class JobPaths:
    """What a job reads, and where it writes."""

    source: str
    output: str


class _Unreadable(Exception):
    """The words are not those of a batch job."""


class _Reader(argparse.ArgumentParser):
    """Reads the words of others: neither prints nor ends the process."""

    def error(self, message: str) -> NoReturn:
        raise _Unreadable(message)


def parse_arguments(arguments: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    """Returns the options of the command line; ends the process if they make no sense."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=description)
    return _with_arguments(parser).parse_args(arguments)


def find_job_paths(command: str) -> JobPaths | None:
    """Returns source and output of a shell command that runs a batch job.

    Variables of the shell stay as they are written. What comes before the module, options
    that are unknown here, and what follows the command in the same line do not matter.

    Returns:
        None if it is another command.
    """
    arguments = _arguments_in(command)
    if arguments is None:
        return None
    try:
        found, _ = _with_arguments(_Reader(add_help=False)).parse_known_args(arguments)
    except _Unreadable:
        return None
    return JobPaths(found.source, found.output)


def _arguments_in(command: str) -> list[str] | None:
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


def _with_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    add = parser.add_argument
    add("source", help="manifest (JSONL, CSV), directory, glob or bucket prefix")
    add("output", help="directory or bucket prefix of the results")
    add(
        "--profile",
        "-p",
        default=DEFAULT_PROFILE,
        help="built-in profile, a YAML file, or what would be in one as {...}",
    )
    add("--stages", type=_stages, help="as vad,asr,punctuation; all by default")
    add("--formats", type=_formats, help="beside JSON, as srt,vtt,txt")
    add("--itn", action=argparse.BooleanOptionalAction, help="numbers in digits, or not")
    add("--retry-failed", action="store_true", help="try recordings again that were no good")
    add(
        "--accept-failures",
        action=argparse.BooleanOptionalAction,
        help="exit code 0 where the only failures are those that trying again does not help",
    )
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
