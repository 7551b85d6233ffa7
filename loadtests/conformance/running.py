"""One run of Schemathesis against a service."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from loadtests.conformance.report import judge, read_report
from loadtests.load.clips import ClipLibrary

_CLIP_S = 2.0
_ROOT = Path(__file__).parents[2]
_CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "described_headers",
)


def run(command: str, url: str, num_cases: int, seed: int, max_minutes: float) -> int:
    """Has the cases sent, prints what Schemathesis says of them, and judges.

    Args:
        command: path of Schemathesis.
        url: of the service.
        num_cases: how many to send at least.
        seed: the same one gives the same cases.
        max_minutes: after which the run has failed.

    Returns:
        The exit code.
    """
    with tempfile.TemporaryDirectory(prefix="paraserve-conformance-") as name:
        directory = Path(name)
        library = ClipLibrary(directory)
        report, counts = directory / "report.json", directory / "counts.json"
        options = {
            "--url": url,
            "--checks": ",".join(_CHECKS),
            # Two routes have as many cases as one likes, the others a few.
            "--max-examples": str(num_cases // 2),
            "--seed": str(seed),
            "--phases": "examples,coverage,fuzzing",
            "--generation-database": "none",
            "--report": "json",
            "--report-json-path": str(report),
        }
        clip = library.path(library.clip(_CLIP_S))
        environment = {
            **os.environ,
            "PYTHONPATH": str(_ROOT),
            "SCHEMATHESIS_HOOKS": "loadtests.conformance.hooks",
            "PARASERVE_CONFORMANCE_CLIP": str(clip),
            "PARASERVE_CONFORMANCE_SEED": str(seed),
            "PARASERVE_CONFORMANCE_COUNTS": str(counts),
            "NO_PROXY": "*",
        }
        listed = [part for option in options.items() for part in option]
        # It leaves a cache where it runs.
        command = str(Path(shutil.which(command) or command).absolute())
        call = [command, "run", f"{url}/openapi.json", *listed]
        call += ["--continue-on-failure", "--no-color", "--warnings", "off"]
        try:
            subprocess.run(  # noqa: S603  # the command line of who runs this
                call, env=environment, cwd=name, timeout=max_minutes * 60, check=False
            )
        except subprocess.TimeoutExpired:
            print(f"it did not end within {max_minutes:g} minutes", file=sys.stderr)
            return 1
        verdict, right = judge(read_report(report, counts), num_cases)
    print(verdict)
    return 0 if right else 1


def find_schemathesis() -> str | None:
    """Returns the path of the command, None if it is not installed."""
    return shutil.which("schemathesis", path=_search_path())


def _search_path() -> str:
    """Where commands are looked for: first beside this Python."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
