"""`paraserve logs`: the JSON logs of a service that `paraserve serve` runs on this machine."""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from serve_app.cli.options import JsonOption
from serve_app.core.errors import ConfigurationError
from serve_app.hosting.run_directory import RunDirectory, runs_root

_POLL_S = 0.3
_SERVE_LOGS = "session_latest/logs/serve"
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_ID_FIELDS = ("paraserve_request_id", "request_id")
# Ray's own fields, and those that the line shows in front.
_NOT_SHOWN = frozenset(
    (
        *("asctime", "levelname", "message", "filename", "lineno", "process", "log_to_stderr"),
        *("worker_id", "node_id", "actor_id", "task_id", "job_id", "component_id"),
        *("task_name", "task_func_name", "actor_name", "component_name", "application", "route"),
        *("deployment", "replica", "timestamp_ns", *_ID_FIELDS),
    )
)


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a replica's log.

    Attributes:
        time_s: Unix time.
        text: the line as it was written.
        fields: of its JSON.
    """

    time_s: float
    text: str
    fields: Mapping[str, Any]

    @property
    def request_id(self) -> str:
        return next((str(self.fields[name]) for name in _ID_FIELDS if self.fields.get(name)), "")

    @property
    def level(self) -> str:
        return str(self.fields.get("levelname", ""))

    def describe(self) -> str:
        """Returns the line for a terminal: time, level, replica, request, message, fields."""
        clock = time.strftime("%H:%M:%S", time.localtime(self.time_s))
        replica = " ".join(
            str(self.fields[name]) for name in ("deployment", "replica") if self.fields.get(name)
        )
        others = " ".join(
            f"{name}={value}"
            for name, value in self.fields.items()
            if name not in _NOT_SHOWN and value not in (None, "", [])
        )
        parts = (
            f"{clock}.{int(self.time_s % 1 * 1000):03d}",
            self.level,
            replica,
            self.request_id,
            str(self.fields.get("message", "")),
            others,
        )
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class LineFilter:
    """Which lines are shown.

    Attributes:
        request_id: of one request; None for all lines.
        level: the lowest level.
    """

    request_id: str | None = None
    level: str = "INFO"

    def __call__(self, line: LogLine) -> bool:
        if self.request_id is not None and line.request_id != self.request_id:
            return False
        rank = _LEVELS.index(line.level) if line.level in _LEVELS else len(_LEVELS)
        return rank >= _LEVELS.index(self.level)


class LogFolder:
    """The logs of all replicas of a run; each call of `new_lines` continues where the last ended.

    Args:
        folder: with a file per replica.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets: dict[Path, int] = {}

    def new_lines(self) -> Iterator[LogLine]:
        """Yields the lines since the last call, by time."""
        files = [list(self._read(path)) for path in sorted(self._folder.glob("*.log"))]
        return heapq.merge(*files, key=lambda line: line.time_s)

    def _read(self, path: Path) -> Iterator[LogLine]:
        offset = self._offsets.get(path, 0)
        try:
            with path.open("rb") as file:
                # Ray starts a file anew when it is full.
                if file.seek(0, 2) < offset:
                    offset = 0
                file.seek(offset)
                content = file.read()
        except FileNotFoundError:
            return
        complete = content.rfind(b"\n") + 1
        self._offsets[path] = offset + complete
        time_s = path.stat().st_mtime
        for text in content[:complete].decode("utf-8", "replace").splitlines():
            fields = _fields(text)
            time_s = fields.get("timestamp_ns", time_s * 1e9) / 1e9
            yield LogLine(time_s, text, fields)


def _fields(text: str) -> Mapping[str, Any]:
    try:
        fields = json.loads(text)
    except ValueError:
        fields = None
    # Tracebacks that something else prints are no JSON.
    return fields if isinstance(fields, dict) else {"message": text, "levelname": "ERROR"}


def logs_directory(run: RunDirectory) -> Path:
    """Returns where the replicas of a run write their logs."""
    return run.ray / _SERVE_LOGS


def latest_run(runs: Iterable[RunDirectory]) -> RunDirectory:
    """Returns the run that is up, else the newest one with logs.

    Raises:
        ConfigurationError: there is none.
    """
    with_logs = [run for run in runs if logs_directory(run).is_dir()]
    if not with_logs:
        raise ConfigurationError(
            "no logs found: `paraserve serve` has not run on this machine as this user. For a "
            "release on Kubernetes see `paraserve cluster logs`"
        )
    return max(with_logs, key=lambda run: (run.has_live_owner, run.path.stat().st_mtime))


def logs_command(
    request_id: Annotated[
        str | None, typer.Argument(help="X-Request-ID of one request; all lines by default.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines until the service ends.")
    ] = False,
    level: Annotated[
        str, typer.Option(help=f"Lowest level: {', '.join(_LEVELS).lower()}.")
    ] = "info",
    as_json: JsonOption = False,
) -> None:
    """Print the logs of the service that runs on this machine, or ran last."""
    if level.upper() not in _LEVELS:
        raise typer.BadParameter(f"--level is one of {', '.join(_LEVELS).lower()}")
    root = runs_root()
    run = latest_run(map(RunDirectory, root.iterdir()) if root.is_dir() else ())
    is_shown = LineFilter(request_id, level.upper())
    folder = LogFolder(logs_directory(run))
    num_shown = _print(folder, is_shown, as_json)
    while follow and run.has_live_owner:
        time.sleep(_POLL_S)
        num_shown += _print(folder, is_shown, as_json)
    if request_id is not None and not num_shown:
        raise ConfigurationError(f"no line in {logs_directory(run)} has the id {request_id}")


def _print(folder: LogFolder, is_shown: LineFilter, as_json: bool) -> int:
    shown = [line for line in folder.new_lines() if is_shown(line)]
    for line in shown:
        typer.echo(line.text if as_json else line.describe())
    return len(shown)
