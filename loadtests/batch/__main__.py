"""Batch jobs under load and under kills.

python -m loadtests batch resume        killed three times, nothing lost, nothing twice
python -m loadtests batch throughput    against the same engines in a plain loop
python -m loadtests batch beside        what requests notice of a job on spare capacity
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests.harness.report import Report, parse, parser


def main(given: Sequence[str] | None = None) -> int:
    options = parse(_parser(), given)
    # Each imports what it needs, some of it only with an environment prepared.
    with Report(f"batch-{options.run}", options) as report:
        importlib.import_module(f"loadtests.batch.{options.run}").run(options, report)
    return report.exit_code


def _parser() -> argparse.ArgumentParser:
    made = parser("batch", __doc__)
    runs = made.add_subparsers(dest="run", required=True)
    resume = runs.add_parser("resume", help="killed three times, against a clean run").add_argument
    resume("--scale", type=float, default=1.0, help="1 is 2,000 clips and 5 recordings of an hour")
    resume("--minutes", type=float, default=60.0, help="length of the long recordings")
    resume("--bad", action="store_true", help="200 files (times scale) that are no audio, too")
    resume("--nodes", type=int, default=3, help="worker nodes")
    resume("--seed", type=int, default=1)
    resume("--directory", type=Path, help="for recordings and outputs while it runs")
    loop = runs.add_parser("throughput", help="against the engines in a plain loop").add_argument
    loop("--minutes", type=float, default=60.0, help="audio of one round, in min")
    loop("--rounds", type=int, default=3)
    beside = runs.add_parser("beside", help="what the service notices of a job").add_argument
    beside("--requests", type=int, default=60, help="of each phase")
    beside("--rounds", type=int, default=2, help="of a phase without and one with a job")
    beside("--rate", type=float, default=1.0, help="requests per second")
    for add in (resume, loop, beside):
        add("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the job")
        add("--out", type=Path, default=Path("bench-results"), help="directory of the report")
    return made


if __name__ == "__main__":
    sys.exit(main())
