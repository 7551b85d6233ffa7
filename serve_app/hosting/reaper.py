"""Ends the processes of a run when its owner ends, for whatever reason.

`python -m serve_app.hosting.reaper DIRECTORY`, with a pipe from the owner on standard input. The
pipe closes when the owner ends; then the run's remaining processes are ended, because HAProxy,
unlike Ray's own processes, would keep listening.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from serve_app.hosting.run_directory import RunDirectory, close_run

_GRACE_S = 3.0


class Reaper:
    """The process that outlives a run.

    Args:
        run: the run to watch.
    """

    def __init__(self, run: RunDirectory) -> None:
        # In a separate session, so that Ctrl-C in the terminal does not reach it.
        self._process = subprocess.Popen(  # noqa: S603, our own module
            [sys.executable, "-m", __name__, str(run.path)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def dismiss(self) -> None:
        """Makes it clean up and end; returns when it has ended."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


def main(directory: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.read(0, 1)
    run = RunDirectory(directory)
    owner = run.owner
    if owner is not None and owner.is_alive:
        # The owner has dismissed us and cleans up itself.
        run.end_processes(_GRACE_S, but=(owner.pid,))
    else:
        run.end_processes(_GRACE_S)
        close_run(run)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
