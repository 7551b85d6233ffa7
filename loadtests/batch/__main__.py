"""The command line of the batch runs; `python -m loadtests batch --help`."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path


def main() -> int:
    """Returns the exit code of the run that was asked for."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))
    # Each imports what it needs, some of it only with an environment prepared.
    if options.run == "resume":
        from loadtests.batch.resume import resume

        return resume(options)
    if options.run == "throughput":
        from loadtests.batch.throughput import throughput

        return throughput(options)
    from loadtests.batch.beside import beside

    return beside(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests batch", description=__doc__)
    runs = parser.add_subparsers(dest="run", required=True)
    _add_resume(runs.add_parser("resume", help="killed three times, against a clean run"))
    _add_throughput(runs.add_parser("throughput", help="against the engines in a plain loop"))
    _add_beside(runs.add_parser("beside", help="what the service notices of a job"))
    return parser


def _add_resume(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--scale", type=float, default=1.0, help="1 is 2,000 clips and 5 recordings of an hour")
    add("--bad", action="store_true", help="200 files (times scale) that are no audio, too")
    add("--nodes", type=int, default=3, help="worker nodes")
    add("--seed", type=int, default=1)
    add("--directory", type=Path, default=None, help="for recordings and outputs while it runs")
    add("--keep", type=Path, default=None, help="copy the outputs here")
    _add_common(parser)


def _add_throughput(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--minutes", type=float, default=60.0, help="audio of one round, in min")
    add("--rounds", type=int, default=3)
    _add_common(parser)


def _add_beside(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--requests", type=int, default=60, help="of each phase")
    add("--rounds", type=int, default=2, help="of a phase without and one with a job")
    add("--rate", type=float, default=1.0, help="requests per second")
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--set", action="append", metavar="NAME=VALUE", help="a setting of the job")
    add("--output", type=Path, default=Path("bench-results/batch"))


if __name__ == "__main__":
    sys.exit(main())
