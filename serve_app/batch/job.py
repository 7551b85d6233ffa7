"""A batch job from its source to its report; finished recordings are never repeated."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve_app.batch.attempts import Attempt, AttemptEnd, AttemptJournal
from serve_app.batch.fingerprint import config_fingerprint, config_of
from serve_app.batch.manifest import read_items
from serve_app.batch.outputs import PROGRESS, OutputStore
from serve_app.batch.pending import PendingRecordings, Work, find_pending
from serve_app.batch.progress import (
    Counters,
    JobState,
    ProgressReporter,
    Snapshot,
)
from serve_app.batch.progress_display import print_json_line
from serve_app.batch.records import BatchItem, Failure, PackIdentity
from serve_app.batch.report import report_of, write_report
from serve_app.batch.report_data import BatchReport
from serve_app.batch.session import (
    CapacityWatch,
    Stopped,
    connected,
    num_cluster_cpus,
    num_cpus_of,
    stoppable,
    watched,
)
from serve_app.batch.storage import LocalFiles
from serve_app.batch.uris import plain_uri
from serve_app.batch.waiting import unplaced_demand
from serve_app.core.errors import ConfigurationError
from serve_app.core.records import STAGES, PackRole, Stage
from serve_app.core.speakers import ANY_NUMBER, parse_speaker_numbers
from serve_app.inference.fingerprint import weights_checksum
from serve_app.inference.loading import find_pack, packs_of, with_pack
from serve_app.settings import Settings
from serve_app.settings.batch import TextFormat

if TYPE_CHECKING:
    from serve_app.batch.punctuate_stage import Failed, Outcome
    from serve_app.batch.ray_data import OwnActors
    from serve_app.batch.via_service import SpareCapacity

_LOG = logging.getLogger(__name__)

_LEFTOVER_AGE_S = 3600.0
"""Unfinished files that are older belong to writers that died."""
_WRITE_S = 10.0
"""No write takes this long; what is older once all writers have ended is nobody's."""

_WRITES_PER_RECORD = 5
"""The attempt's record is written at every so many writes of the progress."""


@dataclass(frozen=True, slots=True)
class JobOrder:
    """A job to run.

    Attributes:
        source: manifest, directory, glob or prefix.
        output: directory or prefix of the results.
        stages: to run; None for all in the settings.
        formats: to write beside JSON; None for those of the settings.
        itn: write numbers in digits; None for the value of the settings.
        retry_failed: retry recordings that failed permanently.
        speakers: label who speaks: a number of speakers, a range, or `any`; None for labels
            only if the stages have `speakers`.
    """

    source: str
    output: str
    stages: tuple[Stage, ...] | None = None
    formats: tuple[TextFormat, ...] | None = None
    itn: bool | None = None
    retry_failed: bool = False
    speakers: str | None = None


class BatchJob:
    """One run of a job.

    Args:
        settings: of the job.
        order: what to do.
        show: called with the progress; prints lines of JSON by default.

    Raises:
        ConfigurationError: the settings do not support the order.
    """

    def __init__(
        self,
        settings: Settings,
        order: JobOrder,
        show: Callable[[Snapshot], None] | None = None,
    ) -> None:
        settings, stages = _with_speakers(settings, order)
        self._settings = job_settings(settings, stages, order.itn)
        self._order = order
        self._show = show or print_json_line
        formats = settings.batch.formats if order.formats is None else order.formats
        self._formats: tuple[TextFormat, ...] = formats
        self._store = OutputStore(order.output, formats, layout=settings.batch.layout)
        self._journal = AttemptJournal(self._store.files)
        self._attempt: Attempt | None = None
        self._counters = Counters()
        self._num_writes = 0
        self._reporter: ProgressReporter | None = None

    def run(self) -> BatchReport:
        """Runs the job.

        Raises:
            ManifestError: the source is invalid or empty.
            PackError: a model cannot be used.
            StartFailed: `batch.resources` is "serve" and the service is not running.
            RayError: the job failed on the cluster.
            OSError: the output cannot be written.
            ClusterError: the cluster has become too small for the job.
            Stopped: SIGTERM was received.
            KeyboardInterrupt: SIGINT was received.
        """
        batch = self._settings.batch
        layout = self._store.settle_layout()
        if layout != batch.layout:
            _LOG.info("%s keeps its layout, %s", plain_uri(self._order.output), layout)
            batch = batch.model_copy(update={"layout": layout})
            self._settings = self._settings.model_copy(update={"batch": batch})
        interval_s = batch.log_interval_s
        # Each put to a bucket costs money.
        often = (1.0,) if isinstance(self._store.files, LocalFiles) else (interval_s,)
        reporter = ProgressReporter(self._counters, self._write, self._show, interval_s, *often)
        self._reporter = reporter
        with reporter:
            try:
                with stoppable():
                    report = self._run()
            except BaseException as error:
                if isinstance(error, Stopped | KeyboardInterrupt):
                    self._record_end("stopped", "cancelled")
                else:
                    self._record_end("failed", "failed")
                raise
            self._counters.state = "done"
        return report

    def _run(self) -> BatchReport:
        self._store.sweep(_LEFTOVER_AGE_S)
        items = list(read_items(self._order.source))
        # A job uses only the first model of the recognizer.
        needed = packs_of(with_pack(self._settings, self._settings.recognizer.pack))
        found = {each.role: find_pack(self._settings, each.name) for each in needed}
        models = {
            role: PackIdentity(pack.name, weights_checksum(pack)) for role, pack in found.items()
        }
        digest = config_fingerprint(config_of(self._settings, models))
        retry_failed = self._order.retry_failed
        pending = find_pending(
            items, self._store, digest, self._settings, retry_failed=retry_failed
        )
        for failure in pending.failures:
            self._store.write_failure(failure)
        self._count_pending(items, pending)
        self._attempt = self._journal.begin(digest, time.time())
        if pending.works:
            # `stoppable` again: connecting replaces the handler of SIGTERM.
            with connected(self._settings), stoppable(), watched(self._capacity_watch()):
                self._process(pending.works, models)
        self._counters.state = "finishing"
        self._store.sweep(_WRITE_S)
        self._record("completed")
        return self._report([item.id for item in items], digest, pending.fingerprints)

    def _capacity_watch(self) -> CapacityWatch:
        batch = self._settings.batch
        return CapacityWatch(num_cpus_of(batch), batch.room_timeout_s, num_cluster_cpus)

    def _report(
        self, ids: Sequence[str], digest: str, fingerprints: Mapping[str, str]
    ) -> BatchReport:
        self._store.collect_failures_jsonl(ids)
        attempts = [one for one in self._journal.attempts() if one.config == digest]
        report = report_of(self._store, ids, attempts, fingerprints)
        write_report(report, self._store)
        return report

    def _count_pending(self, items: Sequence[BatchItem], pending: PendingRecordings) -> None:
        counters = self._counters
        counters.total = len(items)
        counters.done = pending.num_done
        counters.failed = pending.num_given_up + len(pending.failures)
        counters.planned_files = len(pending.works)
        sizes = [work.size_bytes for work in pending.works]
        known = [size for size in sizes if size is not None]
        counters.planned_bytes = sum(known) if len(known) == len(sizes) else None
        counters.state = "running"
        _LOG.info(
            "%d recordings: %d already finished, %d failed, %d to do",
            *(len(items), pending.num_done, counters.failed, len(pending.works)),
        )

    def _process(self, works: Sequence[Work], models: Mapping[PackRole, PackIdentity]) -> None:
        self._counters.working_since_s = time.monotonic()
        seen: set[int] = set()
        actors = self._actors(models)
        outcomes = actors.outcomes(works)
        self._counters.ask = actors.computed
        self._counters.ask_waiting = unplaced_demand
        try:
            for outcome in outcomes:
                self._handle(outcome, works, seen)
            self._counters.refresh()
        except (Stopped, KeyboardInterrupt):
            # A kill follows within seconds, and stopping Ray may take longer.
            self._record_end("stopped", "cancelled")
            raise
        finally:
            self._counters.ask = self._counters.ask_waiting = None
            outcomes.close()
        missing = [work.item.id for number, work in enumerate(works) if number not in seen]
        if missing:
            raise RuntimeError(f"{len(missing)} recordings have no outcome, such as {missing[0]}")

    def _actors(self, models: Mapping[PackRole, PackIdentity]) -> OwnActors | SpareCapacity:
        # They import Ray, whose environment must be set first.
        from serve_app.batch.ray_data import OwnActors
        from serve_app.batch.via_service import SpareCapacity

        kind = OwnActors if self._settings.batch.resources == "own" else SpareCapacity
        return kind(self._settings, self._order.output, self._formats, models)

    def _handle(self, outcome: Outcome, works: Sequence[Work], seen: set[int]) -> None:
        from serve_app.batch.punctuate_stage import Failed, Recognized

        counters = self._counters
        if isinstance(outcome, Recognized):
            counters.recognized_audio_s = outcome.audio_s
            counters.open = outcome.num_open
            return
        work = works[outcome.number]
        if outcome.number in seen:
            raise RuntimeError(f"recording {work.item.id} came out twice")
        seen.add(outcome.number)
        if isinstance(outcome, Failed):
            self._store.write_failure(_failure(work, outcome))
        counters.count_handled(
            outcome.audio_s,
            work.size_bytes,
            None if isinstance(outcome, Failed) else outcome.times,
        )

    def _write(self, content: bytes) -> None:
        self._store.files.put(PROGRESS, content)
        self._num_writes += 1
        if self._num_writes % _WRITES_PER_RECORD == 0:
            self._record("running")

    def _record_end(self, state: JobState, end: AttemptEnd) -> None:
        """Records the end of the attempt in its journal and in the progress file."""
        if self._counters.state in ("stopped", "failed"):
            return
        self._counters.state = state
        self._record(end)
        if self._reporter is not None:
            self._reporter.report()

    def _record(self, end: AttemptEnd) -> None:
        attempt, counters = self._attempt, self._counters
        if attempt is None or attempt.end != "running":
            return
        times = counters.times
        # Padding on a GPU is not counted.
        packed = self._settings.recognizer.device == "cpu"
        num_frames = counters.computed_frames if packed else 0
        self._attempt = Attempt(
            number=attempt.number,
            config=attempt.config,
            started_unix_s=attempt.started_unix_s,
            wall_s=time.monotonic() - counters.began_s,
            end=end,
            num_finished=counters.num_finished,
            num_failed=counters.handled_files - counters.num_finished,
            recognized_s=counters.computed_audio_s,
            finished_audio_s=counters.finished_audio_s,
            useful_frames=num_frames,
            computed_frames=num_frames,
            segment_s=times.segment_s,
            recognize_s=times.recognize_s,
            punctuate_s=times.punctuate_s,
        )
        self._journal.record(self._attempt)


def _with_speakers(settings: Settings, order: JobOrder) -> tuple[Settings, tuple[Stage, ...]]:
    """Returns the settings and stages of an order, with those that its labels need.

    Raises:
        ConfigurationError: the number of speakers is out of bounds.
    """
    stages = order.stages or settings.stages
    if order.speakers is None:
        return settings, stages
    if order.speakers != ANY_NUMBER:
        try:
            parse_speaker_numbers(order.speakers)
        except ValueError as error:
            raise ConfigurationError(f"speakers {error}") from None
        batch = settings.batch.model_copy(update={"speakers": order.speakers})
        settings = settings.model_copy(update={"batch": batch})
    wanted = {*settings.stages, "speakers"}
    changed = {"stages": tuple(stage for stage in STAGES if stage in wanted)}
    return settings.model_copy(update=changed), tuple(dict.fromkeys((*stages, "speakers")))


def job_settings(
    settings: Settings, stages: tuple[Stage, ...], itn: bool | None = None
) -> Settings:
    """Returns the settings for the job's actors.

    Args:
        settings: as they were loaded.
        stages: to run.
        itn: replaces `batch.itn` unless None.

    Raises:
        ConfigurationError: a stage is missing, or a model runs on a GPU that its actors do
            not reserve.
    """
    if "asr" not in stages or not set(stages) <= set(settings.stages):
        raise ConfigurationError(
            f"stages {', '.join(stages)}: they must include asr, and each must be one of "
            f"{', '.join(settings.stages)}"
        )
    changed: dict[str, object] = {"stages": tuple(s for s in settings.stages if s in stages)}
    batch = settings.batch
    if itn is not None:
        changed["batch"] = batch.model_copy(update={"itn": itn})
    if batch.resources == "own":
        for name, pool in (("recognizer", batch.recognizers), ("punctuator", batch.punctuators)):
            section = settings.recognizer if name == "recognizer" else settings.punctuator
            if section.device != "cpu" and pool.num_gpus == 0:
                raise ConfigurationError(
                    f"{name}.device is {section.device}, but batch.{name}s.num_gpus is 0: Ray "
                    "would hide the GPU from the actor"
                )
            # An actor's share of a device's memory follows from what it reserves.
            deployment = section.deployment.model_copy(update={"num_gpus": pool.num_gpus})
            changed[name] = section.model_copy(update={"deployment": deployment})
        device = settings.speaker_embedder.device
        if "speakers" in stages and device != "cpu" and batch.recognizers.num_gpus == 0:
            raise ConfigurationError(
                f"speaker_embedder.device is {device}, but batch.recognizers.num_gpus is 0: it "
                "runs in the recognizers' actors, and Ray would hide the GPU from them"
            )
    return settings.model_copy(update=changed)


def _failure(work: Work, failed: Failed) -> Failure:
    return Failure(
        id=work.item.id,
        uri=work.item.uri,
        kind=failed.kind,
        reason=failed.reason,
        permanent=failed.permanent,
        attempts=failed.attempts,
        fingerprint=work.fingerprint,
    )
