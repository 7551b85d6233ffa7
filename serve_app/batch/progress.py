"""Progress of a job: counters, and a progress file that is always complete."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Literal

from serve_app.batch.records import StageTimes
from serve_app.batch.waiting import Demand

JobState = Literal["preparing", "running", "finishing", "done", "stopped", "failed"]

_WRITE_INTERVAL_S = 1.0
_NOTHING = StageTimes(0.0, 0.0, 0.0, 0.0)

_NO_DEMAND = Demand()

_PLACEMENT_S = 5.0
"""How long Ray may take to place an actor before the job counts as waiting for it."""


@dataclass(frozen=True, slots=True)
class Computed:
    """Audio that the models have processed.

    Attributes:
        audio_s: seconds of speech.
        num_frames: encoder frames of it.
    """

    audio_s: float
    num_frames: int

    def __add__(self, other: Computed) -> Computed:
        return Computed(self.audio_s + other.audio_s, self.num_frames + other.num_frames)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Progress of a job at one moment.

    Attributes:
        state: of the job.
        total: recordings of the source.
        done: of them, those with a transcript, earlier runs included.
        failed: of them, those that failed and are not retried in this run.
        left: of them, the rest.
        open: recordings that are partly recognized.
        audio_h: hours of the recordings that this run has handled.
        recognized_audio_h: hours of speech that this run's recognizers returned.
        computed_audio_h: hours of speech that they have computed, repeated work included.
        elapsed_s: since the start of this run.
        rtfx: seconds of audio per second of this run; None before the first.
        eta_s: estimated seconds left; None if not known yet.
        unix_s: time of the snapshot.
        waiting_cpus: cores that actors wait for, because the cluster is full.
        waiting_gpus: GPUs that actors wait for.
    """

    state: JobState
    total: int
    done: int
    failed: int
    left: int
    open: int
    audio_h: float
    recognized_audio_h: float
    computed_audio_h: float
    elapsed_s: float
    rtfx: float | None
    eta_s: float | None
    unix_s: float
    waiting_cpus: float = 0.0
    waiting_gpus: float = 0.0


@dataclass(slots=True)
class Counters:
    """Counters of a run; written by one thread, read by others.

    Attributes:
        state: of the run.
        total: recordings of the source.
        done: see `Snapshot`.
        failed: see `Snapshot`.
        open: see `Snapshot`.
        audio_s: length of the recordings that this run has handled.
        recognized_audio_s: speech that this run's recognizers returned.
        computed_audio_s: see `Snapshot`.
        computed_frames: encoder frames of it.
        planned_bytes: size of the files that this run has to process; None if unknown.
        planned_files: their number.
        handled_bytes: size of the files that it has handled.
        handled_files: their number.
        num_finished: of them, those with a transcript.
        finished_audio_s: their length.
        times: compute time that they took.
        ask: returns what this run has computed; None while unknown.
        ask_waiting: returns what this run's actors wait for; None while unknown.
    """

    state: JobState = "preparing"
    total: int = 0
    done: int = 0
    failed: int = 0
    open: int = 0
    audio_s: float = 0.0
    recognized_audio_s: float = 0.0
    computed_audio_s: float = 0.0
    computed_frames: int = 0
    planned_bytes: int | None = 0
    planned_files: int = 0
    handled_bytes: int = 0
    handled_files: int = 0
    began_s: float = field(default_factory=time.monotonic)
    working_since_s: float | None = None
    num_finished: int = 0
    finished_audio_s: float = 0.0
    times: StageTimes = _NOTHING
    ask: Callable[[], Computed] | None = None
    ask_waiting: Callable[[], Demand] | None = None
    _unplaced: Demand = _NO_DEMAND
    _unplaced_since_s: float | None = None

    def refresh(self) -> None:
        """Updates what was computed, and what the run waits for."""
        self._refresh_waiting(time.monotonic())
        ask = self.ask
        if ask is None:
            return
        computed = ask()
        self.computed_audio_s = computed.audio_s
        self.computed_frames = computed.num_frames

    def _refresh_waiting(self, now_s: float) -> None:
        ask = self.ask_waiting
        self._unplaced = _NO_DEMAND if ask is None else ask()
        if self._unplaced == _NO_DEMAND:
            self._unplaced_since_s = None
        elif self._unplaced_since_s is None:
            self._unplaced_since_s = now_s

    def _waiting(self, now_s: float) -> Demand:
        since_s = self._unplaced_since_s
        is_waiting = since_s is not None and now_s - since_s >= _PLACEMENT_S
        return self._unplaced if is_waiting else _NO_DEMAND

    def count_handled(
        self, audio_s: float, size_bytes: int | None, times: StageTimes | None
    ) -> None:
        """Counts a handled recording; `times` is None if it failed."""
        self.audio_s += audio_s
        self.handled_bytes += size_bytes or 0
        self.handled_files += 1
        if times is None:
            self.failed += 1
            return
        self.done += 1
        self.num_finished += 1
        self.finished_audio_s += audio_s
        self.times = StageTimes(
            self.times.segment_s + times.segment_s,
            self.times.recognize_s + times.recognize_s,
            self.times.punctuate_s + times.punctuate_s,
            self.times.wall_s + times.wall_s,
        )

    def handled_share(self) -> float:
        """Returns the fraction of this run's work that is done, 0 to 1, by file size.

        Finished parts of open recordings count, up to the share of the rest that as many average
        recordings have: recordings that are not open yet are never done.
        """
        if self.planned_files == 0:
            return 1.0
        if not self.planned_bytes:
            return self.handled_files / self.planned_files
        share = self.handled_bytes / self.planned_bytes
        recognized_s = max(self.recognized_audio_s, self.computed_audio_s)
        num_left = self.planned_files - self.handled_files
        if num_left > 0 and self.audio_s > 0 and recognized_s > self.audio_s:
            in_open = share * (recognized_s / self.audio_s - 1)
            share += min(in_open, (1 - share) * min(self.open, num_left) / num_left)
        return min(share, 1.0)

    def snapshot(self, now_s: float, unix_s: float) -> Snapshot:
        elapsed_s = now_s - self.began_s
        working_s = 0.0 if self.working_since_s is None else now_s - self.working_since_s
        audio_s = max(self.audio_s, self.recognized_audio_s, self.computed_audio_s)
        share = self.handled_share()
        waiting = self._waiting(now_s)
        eta_s = working_s * (1 - share) / share if share > 0 and working_s > 0 else None
        return Snapshot(
            state=self.state,
            total=self.total,
            done=self.done,
            failed=self.failed,
            left=max(0, self.total - self.done - self.failed),
            open=self.open,
            audio_h=round(self.audio_s / 3600, 4),
            recognized_audio_h=round(self.recognized_audio_s / 3600, 4),
            computed_audio_h=round(self.computed_audio_s / 3600, 4),
            elapsed_s=round(elapsed_s, 1),
            rtfx=round(audio_s / working_s, 1) if working_s > 0 and audio_s > 0 else None,
            eta_s=None if eta_s is None else round(eta_s, 1),
            unix_s=round(unix_s, 3),
            waiting_cpus=waiting.cpus,
            waiting_gpus=waiting.gpus,
        )


class ProgressReporter:
    """Reports the progress of a run from a thread, for the length of the block.

    Args:
        counters: of the run.
        write: stores the snapshot as JSON; may raise OSError.
        show: called with the progress, for logs or a terminal.
        show_interval_s: between two of its calls.
        write_interval_s: between two writes.
    """

    def __init__(
        self,
        counters: Counters,
        write: Callable[[bytes], None],
        show: Callable[[Snapshot], None],
        show_interval_s: float,
        write_interval_s: float = _WRITE_INTERVAL_S,
    ) -> None:
        self._counters = counters
        self._write = write
        self._show = show
        self._show_interval_s = show_interval_s
        self._write_interval_s = write_interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._logger = logging.getLogger(__name__)

    def __enter__(self) -> ProgressReporter:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Reports a last time."""
        self._ended.set()
        self._thread.join()
        self._report(shown=True)

    def report(self) -> None:
        """Reports now, from the calling thread."""
        self._report(shown=True)

    def _run(self) -> None:
        next_shown_s = time.monotonic()
        while not self._ended.wait(self._write_interval_s):
            due = time.monotonic() >= next_shown_s
            if due:
                next_shown_s = time.monotonic() + self._show_interval_s
            self._report(shown=due)

    def _report(self, *, shown: bool) -> None:
        self._counters.refresh()
        snapshot = self._counters.snapshot(time.monotonic(), time.time())
        try:
            self._write(json.dumps(asdict(snapshot)).encode() + b"\n")
        except OSError as error:
            # If results cannot be written either, the job itself fails.
            self._logger.warning("cannot write the progress: %s", error)
        if shown:
            self._show(snapshot)
