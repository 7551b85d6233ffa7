"""Downloads a pack from ModelScope or Hugging Face: data files only, never code."""

from __future__ import annotations

import importlib
import shutil
import textwrap
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from serve_app.core.errors import PackFetchFailed
from serve_app.packs.references import Hub, HubSource

# What FunASR's format is made of. No pattern matches a Python file: a repository's
# own code (FunASR's trust_remote_code) is not even downloaded.
ALLOWED_PATTERNS = (
    "*.pt",
    "*.yaml",
    "*.json",
    "*.mvn",
    "*.txt",
    "*.md",
    "seg_dict",
    "jieba_usr_dict",
    "LICENSE*",
)

_EXTRAS = {Hub.MODELSCOPE: "modelscope", Hub.HUGGING_FACE: "huggingface"}
_MODULES = {Hub.MODELSCOPE: "modelscope", Hub.HUGGING_FACE: "huggingface_hub"}


def fetch_from_hub(pack: str, source: HubSource, scratch: Path, content: Path) -> str | None:
    """Fills `content` with the repository's pack files.

    Returns:
        The revision that was downloaded: a commit where the hub tells it,
        otherwise the name that was asked for (None: the default branch).

    Raises:
        PackFetchFailed: the client library is missing, the hub cannot be
            reached, or the repository holds no pack.
    """
    fetch = {Hub.MODELSCOPE: _fetch_modelscope, Hub.HUGGING_FACE: _fetch_hugging_face}[source.hub]
    try:
        revision = fetch(source, scratch)
    except ModuleNotFoundError as error:
        # The client itself, or a library that it forgot to require.
        raise PackFetchFailed(
            pack,
            f"{source} needs the Python package {error.name}, which is not installed",
            f"Run: pip install 'paraserve[{_EXTRAS[source.hub]}]'",
        ) from error
    except Exception as error:
        # The clients raise whatever their transport raises, in classes that change
        # between their versions; all of it means the same to the operator.
        problem = textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" …")
        raise PackFetchFailed(
            pack,
            f"{source} could not be downloaded ({problem})",
            "See that the hub can be reached from here and the name is right, or fetch the "
            "pack on a connected machine and copy it",
        ) from error
    _keep_pack_files(scratch, content, _patterns(source))
    if not any(content.iterdir()):
        remedy = f"Name a repository with {', '.join(source.files) or 'model.pt and config.yaml'}"
        raise PackFetchFailed(pack, f"{source} holds no file of a model pack", remedy)
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
    """Takes the allowed files of the top level, whatever else a client left."""
    for path in sorted(scratch.iterdir()):
        allowed = any(fnmatch(path.name, pattern) for pattern in patterns)
        if not allowed or path.name.startswith(".") or not path.is_file():
            continue
        if path.is_symlink():
            shutil.copyfile(path, content / path.name)
        else:
            path.rename(content / path.name)
