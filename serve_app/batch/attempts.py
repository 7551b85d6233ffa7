"""The journal of a job's attempts, from which the report computes lost work.

An attempt is one run of the job's driver. Its record is rewritten every few seconds, so it
survives a kill with the state of the last write.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from serve_app.batch.storage import Files

_FOLDER = "_run/attempts"

AttemptEnd = Literal["running", "completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of the job's driver.

    Attributes:
        number: from 1.
        config: `config_fingerprint` of its configuration.
        started_unix_s: start, by the driver's clock.
        wall_s: from the start until the record was written.
        end: how it ended; "running" if it was killed.
        num_finished: recordings whose results it wrote.
        num_failed: recordings that failed.
        recognized_s: speech that was recognized, repeated work included.
        finished_audio_s: length of the finished recordings.
        useful_frames: encoder frames of speech in its batches.
        computed_frames: encoder frames in its batches, padding included.
        segment_s: compute time of segmentation, over all workers.
        recognize_s: the same of recognition.
        punctuate_s: the same of punctuation.
    """

    number: int
    config: str
    started_unix_s: float
    wall_s: float = 0.0
    end: AttemptEnd = "running"
    num_finished: int = 0
    num_failed: int = 0
    recognized_s: float = 0.0
    finished_audio_s: float = 0.0
    useful_frames: int = 0
    computed_frames: int = 0
    segment_s: float = 0.0
    recognize_s: float = 0.0
    punctuate_s: float = 0.0


class AttemptJournal:
    """The records of all attempts that wrote to one output; only the driver writes."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def begin(self, config: str, started_unix_s: float) -> Attempt:
        """Adds an attempt and returns its record."""
        number = max((each.number for each in self.attempts()), default=0) + 1
        attempt = Attempt(number, config, started_unix_s)
        self.record(attempt)
        return attempt

    def record(self, attempt: Attempt) -> None:
        """Replaces the attempt's record."""
        content = json.dumps(asdict(attempt), indent=2) + "\n"
        self._files.put(f"{_FOLDER}/{attempt.number:05d}.json", content.encode())

    def attempts(self) -> list[Attempt]:
        """Returns all attempts in order; unreadable records are skipped."""
        found = []
        for path in sorted(self._files.list_files(_FOLDER)):
            content = self._files.read(path)
            try:
                found.append(Attempt(**json.loads(content or b"")))
            except (ValueError, TypeError):
                continue
        return found


@dataclass(frozen=True, slots=True)
class WastedWork:
    """Speech that was recognized more than once, or for no result.

    Attributes:
        recognized_s: speech that all attempts recognized.
        kept_s: speech in the results.
        killed_attempts: attempts whose record was never closed; their work since its last
            write is not counted.
    """

    recognized_s: float
    kept_s: float
    killed_attempts: int

    @property
    def wasted_s(self) -> float:
        return max(0.0, self.recognized_s - self.kept_s)

    @property
    def share(self) -> float:
        """Fraction of the recognized speech; 0 without any."""
        return self.wasted_s / self.recognized_s if self.recognized_s else 0.0


def wasted_work(attempts: list[Attempt], kept_s: float) -> WastedWork:
    """Compares the recognized speech with the speech in the results."""
    return WastedWork(
        sum(attempt.recognized_s for attempt in attempts),
        kept_s,
        sum(attempt.end == "running" for attempt in attempts),
    )
