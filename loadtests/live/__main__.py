"""Live transcription: people who speak at real-time pace, with known text.

python -m loadtests live capacity   the most sessions at once, with and without batches
python -m loadtests live steady     a number of sessions for a while: text and memory
python -m loadtests live kills      recognizers are killed while people speak
python -m loadtests live beside     what clips over HTTP notice of the sessions
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
    with Report(f"live-{options.run}", options) as report:
        importlib.import_module(f"loadtests.live.{options.run}").run(options, report)
    return report.exit_code


def _parser() -> argparse.ArgumentParser:
    made = parser("live", __doc__)
    runs = made.add_subparsers(dest="run", required=True)
    capacity = runs.add_parser("capacity", help="the most sessions at once").add_argument
    capacity("--seconds", type=float, default=60.0, help="of speech in each step")
    capacity("--most", type=int, default=64, help="sessions to try")
    capacity("--max-lag", type=float, default=1.0, help="of a session with capacity, in s")
    capacity("--batching", nargs="+", choices=("on", "off"), default=("on", "off"))
    steady = runs.add_parser("steady", help="a number of sessions for a while").add_argument
    steady("--sessions", type=int, default=20)
    steady("--seconds", type=float, default=600.0, help="of speech")
    kills = runs.add_parser("kills", help="recognizers are killed").add_argument
    kills("--sessions", type=int, default=10)
    kills("--seconds", type=float, default=180.0, help="of speech")
    kills("--every", type=float, default=30.0, help="s between two kills")
    beside = runs.add_parser("beside", help="clips beside sessions").add_argument
    beside("--sessions", type=int, default=10)
    beside("--seconds", type=float, default=60.0, help="of speech in each round")
    beside("--clips", type=int, default=40, help="alone, in each round")
    beside("--rounds", type=int, default=2)
    for add in (capacity, steady, kills, beside):
        add("--set", action="append", default=[], metavar="NAME=VALUE", help="of the service")
        add("--out", type=Path, default=Path("bench-results"), help="directory of the report")
    for add in (capacity, steady, beside):
        add("--url", help="a running service; without it one is started for the run")
    return made


if __name__ == "__main__":
    sys.exit(main())
