"""Does the API answer as its OpenAPI document says, whatever it is sent?

    python -m loadtests conformance [--cases 2000] [--seed 0] [--url http://127.0.0.1:8000]

Starts the demo profile on this machine, unless an address is given, and has Schemathesis
send requests that it makes up from the document, well-formed ones and others. A fault is an
answer of 5xx, a status, content type or header that is not documented, or a body or header
that is not as its schema.
Exit code 0 if there was none, and at least as many cases were sent as were asked for.

Needs the extra `conformance`, or `--schemathesis` with the path of the command.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.harness.clips import ClipLibrary
from loadtests.harness.report import Report, parse, parser
from loadtests.serving import RemoteRefused, add_service_options, own_settings, service
from serve_app.core.errors import ConfigurationError

_CLIP_S = 2.0
_ROOT = Path(__file__).parents[2]
_TRANSCRIBED = "POST /v1/audio/transcriptions 200 "
_CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "described_headers",
)


@dataclass(frozen=True, slots=True)
class Found:
    """What Schemathesis says of a run.

    Attributes:
        num_cases: requests that were sent.
        counts: answers by method, path, status and media type, with spaces between them.
        complete: whether it came to its end.
        problems: what is wrong with the answers, and what kept cases from being sent.
    """

    num_cases: int
    counts: Mapping[str, int]
    complete: bool
    problems: Sequence[str]


def main(given: Sequence[str] | None = None) -> int:
    made = parser("conformance", __doc__)
    add_service_options(made)
    add = made.add_argument
    add("--cases", type=int, default=2000, help="number of requests at least")
    add("--seed", type=int, default=0)
    add("--max-minutes", type=float, default=30.0)
    add("--schemathesis", default=find_schemathesis(), help="path of the command")
    options = parse(made, given)
    if options.schemathesis is None:
        print("schemathesis is missing: pip install 'paraserve[conformance]'", file=sys.stderr)
        return 2
    try:
        with (
            service(options.url, own_settings(options.set)) as url,
            Report("conformance", options) as report,
        ):
            judge(report, run(url, options), options.cases)
    except (RemoteRefused, ConfigurationError) as error:
        print(error, file=sys.stderr)
        return 2
    return report.exit_code


def run(url: str, options: argparse.Namespace) -> Found | None:
    """Has the cases sent; returns None if the run broke off."""
    with tempfile.TemporaryDirectory(prefix="paraserve-conformance-") as name:
        directory = Path(name)
        library = ClipLibrary(directory)
        report, counts = directory / "report.json", directory / "counts.json"
        environment = {
            **os.environ,
            "PYTHONPATH": str(_ROOT),
            "SCHEMATHESIS_HOOKS": "loadtests.conformance.hooks",
            "PARASERVE_CONFORMANCE_CLIP": str(library.path(library.clip(_CLIP_S))),
            "PARASERVE_CONFORMANCE_SEED": str(options.seed),
            "PARASERVE_CONFORMANCE_COUNTS": str(counts),
            "NO_PROXY": "*",
        }
        # It leaves a cache where it runs.
        command = str(Path(shutil.which(options.schemathesis) or options.schemathesis).absolute())
        arguments = [
            *("run", f"{url}/openapi.json", "--url", url, "--checks", ",".join(_CHECKS)),
            # Two routes have as many cases as one likes, the others a few.
            *("--max-examples", str(options.cases // 2), "--seed", str(options.seed)),
            *("--phases", "examples,coverage,fuzzing", "--generation-database", "none"),
            *("--report", "json", "--report-json-path", str(report)),
            *("--continue-on-failure", "--no-color", "--warnings", "off"),
        ]
        try:
            subprocess.run(  # noqa: S603  # the command line of who runs this
                [command, *arguments],
                env=environment,
                cwd=name,
                timeout=options.max_minutes * 60,
                check=False,
            )
        except subprocess.TimeoutExpired:
            print(f"it did not end within {options.max_minutes:g} minutes", file=sys.stderr)
            return None
        return read_found(report, counts)


def read_found(report: Path, counts: Path) -> Found | None:
    """Returns what the report and the hooks say, None if one of them did not get that far."""
    if not (report.exists() and counts.exists()):
        return None
    content = json.loads(report.read_text(encoding="utf-8"))
    failures = [str(failure["title"]) for failure in content["failures"]]
    errors = [str(error.get("title", error)) for error in content["errors"]]
    counted = json.loads(counts.read_text(encoding="utf-8"))
    generated = content["test_cases"]["generated"]
    return Found(generated, counted, content["complete"], (*failures, *errors))


def judge(report: Report, found: Found | None, num_cases: int) -> None:
    """Adds the answers, and whether all was as documented."""
    table = report.table("Answers", ("method, path, status and type", "number"))
    if found is None or not found.complete:
        report.promise("the run comes to its end", "it broke off", False)
    if found is None:
        return
    report.rows(sorted(found.counts.items()))
    table.notes = list(found.problems)
    transcribed = sum(n for answer, n in found.counts.items() if answer.startswith(_TRANSCRIBED))
    sent = f"{found.num_cases}, {transcribed} of them transcribed"
    kept = found.num_cases >= num_cases and transcribed > 0
    report.promise(f"at least {num_cases} cases, some transcribed", sent, kept)
    report.promise("no faults", str(len(found.problems)), not found.problems)


def find_schemathesis() -> str | None:
    """Returns the path of the command, None if it is not installed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return shutil.which("schemathesis", path=path)


if __name__ == "__main__":
    sys.exit(main())
