"""The directory of downloaded packs; a pack is installed completely or not at all."""

from __future__ import annotations

import fcntl
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from serve_app.core.paths import default_pack_dir
from serve_app.packs.registry import PackReference


@dataclass(frozen=True, slots=True)
class PackStore:
    """Holds one directory per pack under `root`; replicas and nodes may share it."""

    root: Path = field(default_factory=default_pack_dir)

    def directory(self, reference: PackReference) -> Path:
        """Returns the directory of the pack in this store, whether or not it exists."""
        return self.root / re.sub(r"[:/]", "--", reference.name)

    @property
    def recordings_directory(self) -> Path:
        return self.root / "recordings"


def install(
    target: Path, *, is_good: Callable[[Path], bool], fill: Callable[[Path, Path], None]
) -> None:
    """Creates the directory `target`, unless a good one exists.

    A concurrent second call waits for the first and then does nothing. `fill(scratch, content)`
    gets two empty directories on the file system of `target`; after it returns, `content` is
    renamed to `target` in one step, so a crash never leaves an incomplete pack.

    Raises:
        OSError: the directory cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target):
        if is_good(target):
            return
        _sweep(target)
        staging = Path(tempfile.mkdtemp(prefix=_staging_prefix(target), dir=target.parent))
        try:
            scratch, content = staging / "scratch", staging / "content"
            scratch.mkdir()
            content.mkdir()
            fill(scratch, content)
            if target.exists():
                target.rename(staging / "replaced")
            content.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _staging_prefix(target: Path) -> str:
    return f".{target.name}.partial-"


def _sweep(target: Path) -> None:
    """Removes the leftovers of killed processes; the lock ensures that nobody uses them."""
    for leftover in target.parent.glob(_staging_prefix(target) + "*"):
        shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    # The kernel releases the lock when its holder dies, so a crash blocks nobody. The file
    # stays: without it two processes could hold the lock.
    with (target.parent / f".{target.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
