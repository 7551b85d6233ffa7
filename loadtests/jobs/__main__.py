"""Jobs over HTTP: what is lost when processes die, and what jobs cost the requests beside them.

python -m loadtests jobs chaos      every kind of process is killed while jobs run
python -m loadtests jobs takeover   the runner of a long job is killed near its end
python -m loadtests jobs beside     clips over HTTP, with and without jobs beside them
python -m loadtests jobs queue      thousands of queued jobs
python -m loadtests jobs stoppage   the database stops for a minute
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests.harness.report import Report, parse, parser
from loadtests.jobs.setup import DATABASES


def main(given: Sequence[str] | None = None) -> int:
    options = parse(_parser(), given)
    with Report(f"jobs-{options.run}", options) as report:
        importlib.import_module(f"loadtests.jobs.{options.run}").run(options, report)
    return report.exit_code


def _parser() -> argparse.ArgumentParser:
    made = parser("jobs", __doc__)
    runs = made.add_subparsers(dest="run", required=True)
    chaos = runs.add_parser("chaos", help="every kind of process is killed").add_argument
    chaos("--jobs", type=int, default=500)
    chaos("--longest", type=float, default=3600.0, help="of the recordings, in s")
    chaos("--every", type=float, default=1.5, metavar="S", help="between two creations")
    chaos("--kill-every", type=float, default=20.0, metavar="S", help="between two kills")
    chaos("--seed", type=int, default=1)
    takeover = runs.add_parser("takeover", help="the runner of a long job is killed").add_argument
    takeover("--seconds", type=float, default=18_000.0, help="of the recording")
    takeover("--at", type=float, default=0.8, help="share that is done when it is killed")
    beside = runs.add_parser("beside", help="clips over HTTP beside jobs").add_argument
    beside("--jobs", type=int, default=200)
    beside("--job-seconds", type=float, default=120.0, help="of each job's recording")
    beside("--clips", type=int, default=60, help="of each kind")
    queue = runs.add_parser("queue", help="thousands of queued jobs").add_argument
    queue("--jobs", type=int, default=10_000)
    queue("--longest", type=float, default=3600.0, help="of the job that runs, in s")
    stoppage = runs.add_parser("stoppage", help="the database stops").add_argument
    stoppage("--seconds", type=float, default=60.0, help="without the database")
    stoppage("--jobs", type=int, default=20)
    stoppage("--job-seconds", type=float, default=300.0, help="of each job's recording")
    for add in (chaos, queue):
        add("--database", nargs="+", choices=DATABASES, default=DATABASES, metavar="KIND")
    for add in (chaos, takeover, beside, queue, stoppage):
        add("--out", type=Path, default=Path("bench-results"), help="directory of the report")
    return made


if __name__ == "__main__":
    sys.exit(main())
