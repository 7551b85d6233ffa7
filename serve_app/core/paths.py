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
