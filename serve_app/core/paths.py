"""Default locations of files."""

from __future__ import annotations

import os
from pathlib import Path


def default_pack_dir() -> Path:
    """Returns `$XDG_CACHE_HOME/paraserve/packs`, or the same under `~/.cache`.

    Source: XDG Base Directory Specification 0.8.
    """
    cache_home = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache_home) if cache_home else Path.home() / ".cache") / "paraserve" / "packs"


def default_jobs_dir() -> Path:
    """Returns `$XDG_STATE_HOME/paraserve/jobs`, or the same under `~/.local/state`.

    Source: XDG Base Directory Specification 0.8.
    """
    state_home = os.environ.get("XDG_STATE_HOME")
    home = Path(state_home) if state_home else Path.home() / ".local" / "state"
    return home / "paraserve" / "jobs"
