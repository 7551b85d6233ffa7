"""What became of a job, in figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from serve_app.batch.attempts import Attempt, WastedWork, wasted_work
from serve_app.batch.records import Failure
from serve_app.batch.result_json import ResultSummary

_NUM_LISTED = 20


@dataclass(frozen=True, slots=True)
class Totals:
    """Of the job, over all attempts.

    Attributes:
        num_recordings: that the job names.
        num_finished: of them, with a result.
        num_partial: of those, with spans that could not be recognized.
        num_failed: of them, given up.
        num_missing: neither; another attempt would do them.
        audio_s: length of the finished ones.
        speech_s: of it, speech.
        wall_s: of all attempts.
        rtfx: audio per wall time, over all attempts; 0 without one.
        num_characters: recognized letters and digits.
    """

    num_recordings: int
    num_finished: int
    num_partial: int
    num_failed: int
    num_missing: int
    audio_s: float
    speech_s: float
    wall_s: float
    rtfx: float
    num_characters: int


@dataclass(frozen=True, slots=True)
class StageTotals:
    """Compute seconds of each stage, of the results."""

    segment_s: float
    recognize_s: float
    punctuate_s: float

    def shares(self) -> dict[str, float]:
        """Returns each stage's part of their sum; zeros where nothing was measured."""
        seconds = asdict(self)
        total = sum(seconds.values())
        return {
            name.removesuffix("_s"): value / total if total else 0.0
            for name, value in seconds.items()
        }


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Against the references, as `transcript.cer` counts.

    Attributes:
        num_references: finished recordings that have one.
        num_characters: of all references.
        num_edits: in all of them.
        worst: highest CER first.
    """

    num_references: int
    num_characters: int
    num_edits: int
    worst: tuple[ResultSummary, ...]

    @property
    def cer(self) -> float:
        """Of all references as one text; 0 where they are empty."""
        return self.num_edits / self.num_characters if self.num_characters else 0.0


@dataclass(frozen=True, slots=True)
class BatchReport:
    """Everything that the report shows.

    Attributes:
        totals: of the job.
        stages: compute.
        padding_ratio: part of the computed encoder frames that carried no speech; None
            where nothing was counted.
        wasted: work that was lost, over all attempts.
        attempts: the first one first.
        slowest: most wall time first.
        failures: in order of their ids.
        failures_by_kind: the most frequent first.
        accuracy: None without references.
        lengths_s: of all finished recordings, with the compute that each took.
    """

    totals: Totals
    stages: StageTotals
    padding_ratio: float | None
    wasted: WastedWork
    attempts: tuple[Attempt, ...]
    slowest: tuple[ResultSummary, ...]
    failures: tuple[Failure, ...]
    failures_by_kind: tuple[tuple[str, int], ...]
    accuracy: Accuracy | None
    lengths_s: tuple[tuple[float, float], ...]


def build_report(
    ids: Collection[str],
    summaries: Collection[ResultSummary],
    failures: Collection[Failure],
    attempts: Sequence[Attempt],
    expected: Mapping[str, str] | None = None,
) -> BatchReport:
    """Puts the report together.

    Args:
        ids: of the job's recordings.
        summaries: results that count as finished; others than the job's are left out.
        failures: recordings given up; those that have a result are left out.
        attempts: of this job and configuration.
        expected: fingerprints by id; a result with another one, of an older content or
            configuration, is none. None to take what is there.
    """
    wanted = set(ids)
    done = {
        each.id: each
        for each in summaries
        if each.id in wanted and (expected is None or expected.get(each.id) == each.fingerprint)
    }
    failed = sorted(
        (each for each in failures if each.id in wanted and each.id not in done),
        key=lambda each: each.id,
    )
    results = list(done.values())
    kinds = Counter(each.kind for each in failed)
    computed = sum(attempt.computed_frames for attempt in attempts)
    useful = sum(attempt.useful_frames for attempt in attempts)
    return BatchReport(
        totals=_totals(len(wanted), results, len(failed), attempts),
        stages=StageTotals(
            sum(each.times.segment_s for each in results),
            sum(each.times.recognize_s for each in results),
            sum(each.times.punctuate_s for each in results),
        ),
        padding_ratio=1 - useful / computed if computed else None,
        wasted=wasted_work(list(attempts), sum(each.speech_s for each in results)),
        attempts=tuple(attempts),
        slowest=tuple(sorted(results, key=_slowness, reverse=True)[:_NUM_LISTED]),
        failures=tuple(failed),
        failures_by_kind=tuple(sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))),
        accuracy=_accuracy(results),
        lengths_s=tuple((each.audio_s, compute_s(each)) for each in results),
    )


def compute_s(summary: ResultSummary) -> float:
    """Returns the compute of all stages for one recording, in s."""
    times = summary.times
    return times.segment_s + times.recognize_s + times.punctuate_s


def _totals(
    num: int, results: list[ResultSummary], num_failed: int, attempts: Sequence[Attempt]
) -> Totals:
    wall_s = sum(attempt.wall_s for attempt in attempts)
    audio_s = sum(each.audio_s for each in results)
    return Totals(
        num_recordings=num,
        num_finished=len(results),
        num_partial=sum(each.partial for each in results),
        num_failed=num_failed,
        num_missing=num - len(results) - num_failed,
        audio_s=audio_s,
        speech_s=sum(each.speech_s for each in results),
        wall_s=wall_s,
        rtfx=audio_s / wall_s if wall_s else 0.0,
        num_characters=sum(each.num_characters for each in results),
    )


def _accuracy(results: list[ResultSummary]) -> Accuracy | None:
    scored = [each for each in results if each.cer is not None]
    if not scored:
        return None
    worst = sorted(scored, key=lambda each: (-(each.cer or 0.0), each.id))
    return Accuracy(
        len(scored),
        sum(each.num_reference_characters or 0 for each in scored),
        sum(each.num_edits or 0 for each in scored),
        tuple(each for each in worst[:_NUM_LISTED] if each.num_edits),
    )


def _slowness(each: ResultSummary) -> float:
    return each.times.wall_s
