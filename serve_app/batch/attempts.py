"""The journal of a job's attempts: what each of them did, for the work that was lost.

An attempt is one run of the job's driver, from its start to its end or its death. Its
record is written anew every few seconds, whole; after a kill it tells what was done until
the last time.
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
        started_unix_s: by the driver's clock.
        wall_s: until the record was written.
        end: "running" in the record of an attempt that was killed.
        num_finished: recordings whose result it wrote.
        num_failed: recordings that it gave up.
        recognized_s: speech that went through the recognizer, each time it did.
        finished_audio_s: length of the recordings whose result it wrote.
        useful_frames: encoder frames of speech in its batches.
        computed_frames: those and what batches were filled up with.
        segment_s: compute of that stage, over all workers; likewise the next two.
        recognize_s: see above.
        punctuate_s: see above.
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
        """Returns all attempts, the first one first; what cannot be read is left out."""
        found = []
        for path in sorted(self._files.entries(_FOLDER)):
            content = self._files.read(path)
            try:
                found.append(Attempt(**json.loads(content or b"")))
            except (ValueError, TypeError):
                continue
        return found


@dataclass(frozen=True, slots=True)
class WastedWork:
    """Speech that was recognized without becoming part of a result, or more than once.

    Attributes:
        recognized_s: what went through the recognizer in all attempts.
        kept_s: speech in the results.
        killed_attempts: attempts that died before their record was closed; what they did
            after it was written last is not counted.
    """

    recognized_s: float
    kept_s: float
    killed_attempts: int

    @property
    def wasted_s(self) -> float:
        return max(0.0, self.recognized_s - self.kept_s)

    @property
    def share(self) -> float:
        """Of all that was recognized; 0 where nothing was."""
        return self.wasted_s / self.recognized_s if self.recognized_s else 0.0


def wasted_work(attempts: list[Attempt], kept_s: float) -> WastedWork:
    """Compares what the attempts recognized with the speech in their results."""
    return WastedWork(
        sum(attempt.recognized_s for attempt in attempts),
        kept_s,
        sum(attempt.end == "running" for attempt in attempts),
    )
