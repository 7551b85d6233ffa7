"""The private directory of a run of `paraserve serve`, and the cleanup after dead runs.

All files and sockets of a run are in one directory below /tmp that only its user may enter: Ray's
session with its logs, HAProxy's configuration and admin socket, and the record of the run's
owner. A later start uses these records to find runs whose owner died, and ends their remaining
processes. It touches nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import shutil
import stat
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from serve_app.core.errors import StartFailed
from serve_app.core.in_flight import RUN_DIRECTORY_VARIABLE
from serve_app.hosting.processes import Process, end_processes, process_of, processes_of_run

_LAUNCHER = "serve_app.hosting.haproxy_launcher"
_OWNER = "owner.json"
_NUM_KEPT = 3
"""Dead runs whose logs are kept."""
_MAX_PATH_BYTES = 36
"""Ray and HAProxy create sockets in it, whose full paths may have at most 107 bytes."""
_GRACE_S = 3.0


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The directory of a run.

    Attributes:
        path: private to the user.
    """

    path: Path

    @property
    def ray(self) -> Path:
        """The directory of Ray's sessions, with sockets and logs."""
        return self.path / "ray"

    @property
    def haproxy(self) -> Path:
        """The program that Ray starts instead of HAProxy."""
        return self.path / "haproxy"

    @property
    def token(self) -> Path:
        """Ray's token for this run."""
        return self.path / "ray-token"

    @property
    def owner(self) -> Process | None:
        """Returns the process that created it, None if unknown."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Process(**json.loads((self.path / _OWNER).read_text(encoding="utf-8")))
        return None

    @property
    def has_live_owner(self) -> bool:
        """Whether the process that made it is known and still runs."""
        owner = self.owner
        return owner is not None and owner.is_alive

    def processes(self, but: tuple[int, ...] = ()) -> list[Process]:
        """Returns the run's remaining processes, except for this one."""
        return processes_of_run(self.path, (os.getpid(), *but))

    def end_processes(self, grace_s: float, but: tuple[int, ...] = ()) -> list[Process]:
        """Ends the run's processes and returns them."""
        return end_processes(lambda: self.processes(but), grace_s)


def runs_root() -> Path:
    """Returns the directory of all runs of this user."""
    name = f"paraserve-{os.geteuid()}"
    root = Path(tempfile.gettempdir()) / name
    return root if len(os.fsencode(root)) <= _MAX_PATH_BYTES - 7 else Path("/tmp") / name  # noqa: S108


def create_run_directory(root: Path | None = None) -> RunDirectory:
    """Returns a new directory, owned by this process.

    Raises:
        StartFailed: the parent directory belongs to another user or is open to others.
    """
    root = root or runs_root()
    _check_private(root)
    path = root / secrets.token_hex(3)
    path.mkdir(mode=0o700)
    owner = process_of(os.getpid()) or Process(os.getpid(), 0)
    (path / _OWNER).write_text(json.dumps(asdict(owner)), encoding="utf-8")
    return RunDirectory(path)


def write_private_files(run: RunDirectory) -> None:
    """Writes Ray's token and the program that Ray starts instead of HAProxy.

    Raises:
        StartFailed: the directory is mounted noexec.
    """
    token = os.open(run.token, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
    with os.fdopen(token, "w") as file:
        file.write(secrets.token_hex(32))
    python = shlex.quote(sys.executable)
    run.haproxy.write_text(f'#!/bin/sh\nexec {python} -m {_LAUNCHER} "$@"\n')
    run.haproxy.chmod(0o700)
    if not os.access(run.haproxy, os.X_OK):
        raise StartFailed(f"{run.path} is mounted noexec: set TMPDIR to another directory")


def own_run_directory() -> RunDirectory | None:
    """Returns the run that this process owns, None if it owns none."""
    named = os.environ.get(RUN_DIRECTORY_VARIABLE)
    if named is None:
        return None
    run = RunDirectory(Path(named))
    owner = run.owner
    return run if owner is not None and owner.pid == os.getpid() else None


def end_leftovers(root: Path | None = None) -> list[Process]:
    """Ends the remaining processes of runs whose owner died, and removes the oldest runs.

    Returns:
        The processes that were ended.
    """
    root = root or runs_root()
    if not root.is_dir():
        return []
    dead = [run for run in map(RunDirectory, root.iterdir()) if _is_dead(run)]
    ended = [process for run in dead for process in run.end_processes(_GRACE_S)]
    dead.sort(key=lambda run: run.path.stat().st_mtime, reverse=True)
    for run in dead[_NUM_KEPT:]:
        shutil.rmtree(run.path, ignore_errors=True)
    return ended


def close_run(run: RunDirectory) -> None:
    """Removes a run's files except for its logs.

    Does nothing in a process that was forked from the run's owner.
    """
    owner = run.owner
    if owner is not None and owner.is_alive and owner.pid != os.getpid():
        return
    if not run.ray.exists():
        shutil.rmtree(run.path, ignore_errors=True)
        return
    for path in (run.token, run.haproxy, run.path / "requests", run.path / "draining"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_dead(run: RunDirectory) -> bool:
    owner = run.owner
    return owner is not None and not owner.is_alive


def _check_private(root: Path) -> None:
    """Creates the directory if necessary, and rejects one that another user may have prepared."""
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o700)
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise StartFailed(f"{root} is not a directory of this user: remove it or set TMPDIR")
    if stat.S_IMODE(status.st_mode) & 0o077:
        root.chmod(0o700)
