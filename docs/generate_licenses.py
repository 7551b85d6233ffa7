"""Writes docs/licenses.md: `make licenses`, or `generate_licenses.py PYTHON` with pip-licenses.

What is listed is what `paraserve` and its extras for running it bring, as installed for PYTHON.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).with_name("licenses.md")
EXTRAS = (
    *("batch", "huggingface", "jobs", "live", "modelscope", "onnx", "ops", "s3", "tracing", "ui"),
    "whisper",
)
HEAD = """# Licenses

Written by `make licenses` (pip-licenses) from what is installed. Paraserve is under Apache-2.0;
these are the packages that it and its extras bring; those for development are left out.
Wheels may carry libraries with licenses of their own: `av` has FFmpeg's (LGPL or GPL, by its
build), `soundfile` has libsndfile's (LGPL), `torch` lists its own in its distribution.

| package | version | license |
|---|---|---|
"""
# Run by the Python whose packages are listed.
CLOSURE = """
import json, sys
from importlib.metadata import PackageNotFoundError, distribution
from packaging.requirements import Requirement

def normal(name):
    return name.lower().replace("_", "-")

found, pending = {}, [("paraserve", frozenset(sys.argv[1:]))]
while pending:
    name, extras = pending.pop()
    if found.get(name, set()) >= extras | {""}:
        continue
    found.setdefault(name, {""}).update(extras)
    try:
        requires = distribution(name).requires or []
    except PackageNotFoundError:
        del found[name]
        continue
    for requirement in map(Requirement, requires):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": e}) for e in extras | {""}):
            pending.append((normal(requirement.name), frozenset(requirement.extras)))
print(json.dumps(sorted(set(found) - {"paraserve"})))
"""


def main(python: str) -> None:
    closure = [python, "-c", CLOSURE, *EXTRAS]
    names = json.loads(_output_of(closure))
    listing = [sys.executable, "-m", "piplicenses", "--python", python, "--format=json",
               "--with-urls", "--from=mixed", "--packages", *names]  # fmt: skip
    packages = json.loads(_output_of(listing))
    rows = (
        f"| {_linked(each)} | {each['Version']} | {_short(each['License'])} |\n"
        for each in sorted(packages, key=lambda each: str(each["Name"]).lower())
    )
    TARGET.write_text(HEAD + "".join(rows), encoding="utf-8")


def _output_of(command: list[str]) -> bytes:
    # Our own command line, not somebody's input.
    return subprocess.run(command, check=True, capture_output=True).stdout  # noqa: S603


def _linked(package: dict[str, str]) -> str:
    url = package["URL"]
    return f"[{package['Name']}]({url})" if url.startswith("http") else package["Name"]


def _short(license_: str) -> str:
    """Some packages put the whole text where the name belongs."""
    first = license_.strip().splitlines()[0]
    return re.sub(r"\s+", " ", first).replace("|", "\\|")[:100]


if __name__ == "__main__":
    main(sys.argv[1])
