"""The figures of the report of a job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from serve_app.batch.attempts import Attempt, WastedWork, wasted_work
from serve_app.batch.records import Failure
from serve_app.batch.result_json import ResultSummary

_NUM_LISTED = 20
_NUM_FOLDERS = 100
_FOLDER_DEPTH = 2


@dataclass(frozen=True, slots=True)
class Totals:
    """Totals of a job over all attempts.

    Attributes:
        num_recordings: recordings of the job.
        num_finished: of them, those with a result.
        num_partial: of those, results with spans that could not be recognized.
        num_failed: recordings that failed.
        num_missing: recordings without result or failure.
        audio_s: length of the finished recordings.
        speech_s: speech in them.
        wall_s: time of all attempts.
        rtfx: audio per wall time; 0 without attempts.
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
    """Compute time of each stage, over all results."""

    segment_s: float
    recognize_s: float
    punctuate_s: float

    def shares(self) -> dict[str, float]:
        """Returns the share of each stage; zeros without measurements."""
        seconds = asdict(self)
        total = sum(seconds.values())
        return {
            name.removesuffix("_s"): value / total if total else 0.0
            for name, value in seconds.items()
        }


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Character error rate against the references, as in `transcript.cer`.

    Attributes:
        num_references: finished recordings with a reference.
        num_characters: characters of all references.
        num_edits: edits over all of them.
        worst: recordings with the highest CER, highest first.
    """

    num_references: int
    num_characters: int
    num_edits: int
    worst: tuple[ResultSummary, ...]

    @property
    def cer(self) -> float:
        """CER of all references as one text; 0 if they are empty."""
        return self.num_edits / self.num_characters if self.num_characters else 0.0


@dataclass(frozen=True, slots=True)
class FolderTotals:
    """The recordings of a folder of the source.

    Attributes:
        folder: up to two names deep; "" for recordings in none.
        num_recordings: of the job.
        num_finished: of them, those with a result.
        num_failed: recordings that failed.
        audio_s: length of the finished recordings.
        cer: over all references of the folder; None without any.
    """

    folder: str
    num_recordings: int
    num_finished: int
    num_failed: int
    audio_s: float
    cer: float | None


@dataclass(frozen=True, slots=True)
class BatchReport:
    """Everything that the report shows.

    Attributes:
        totals: of the job.
        stages: compute.
        padding_ratio: fraction of the computed encoder frames that is padding; None if not
            measured.
        wasted: lost work over all attempts.
        attempts: in order.
        slowest: recordings with the most wall time, most first.
        failures: in order of their ids.
        failures_by_kind: the most frequent first.
        accuracy: None without references.
        folders: those with the most recordings, in order of their names.
        results: of the finished recordings, in order of their ids.
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
    folders: tuple[FolderTotals, ...]
    results: tuple[ResultSummary, ...]


def build_report(
    ids: Collection[str],
    summaries: Collection[ResultSummary],
    failures: Collection[Failure],
    attempts: Sequence[Attempt],
    expected: Mapping[str, str] | None = None,
) -> BatchReport:
    """Builds the report.

    Args:
        ids: of the job's recordings.
        summaries: of all results; those of other jobs are ignored.
        failures: of all recordings; those with a result are ignored.
        attempts: of this job and configuration.
        expected: fingerprints by id; results with others, of an older content or
            configuration, are ignored. None to accept all.
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
        folders=_folders(wanted, results, failed),
        results=tuple(sorted(results, key=lambda each: each.id)),
    )


def compute_s(summary: ResultSummary) -> float:
    """Returns the compute time of all stages for one recording, in s."""
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


def _folders(
    ids: Collection[str], results: Sequence[ResultSummary], failed: Sequence[Failure]
) -> tuple[FolderTotals, ...]:
    num_recordings = Counter(map(folder_of, ids))
    num_failed = Counter(folder_of(each.id) for each in failed)
    finished: dict[str, list[ResultSummary]] = {}
    for each in results:
        finished.setdefault(folder_of(each.id), []).append(each)
    largest = [folder for folder, _ in num_recordings.most_common(_NUM_FOLDERS)]
    return tuple(
        FolderTotals(
            folder,
            num_recordings[folder],
            len(finished.get(folder, ())),
            num_failed[folder],
            sum(each.audio_s for each in finished.get(folder, ())),
            accuracy.cer if (accuracy := _accuracy(finished.get(folder, []))) else None,
        )
        for folder in sorted(largest)
    )


def folder_of(recording_id: str) -> str:
    """Returns the folder of a recording in the report, at most two names deep."""
    return "/".join(recording_id.split("/")[:-1][:_FOLDER_DEPTH])


def _slowness(each: ResultSummary) -> float:
    return each.times.wall_s
