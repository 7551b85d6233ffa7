"""Selection of the recordings that a run still has to process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from tenacity import Retrying, retry_if_exception, stop_after_attempt

from serve_app.batch.fingerprint import file_info, item_fingerprint
from serve_app.batch.outputs import OutputStore
from serve_app.batch.records import NOT_FOUND, READ_ERROR, BatchItem, Failure, FileInfo
from serve_app.core.records import Stage
from serve_app.scheduling.backoff import Backoff
from serve_app.settings import Settings

_STAT_THREADS = 32
_STAT_ATTEMPTS = 3
_BACKOFF = Backoff(first_s=0.5)


@dataclass(frozen=True, slots=True)
class Work:
    """A recording to process.

    Attributes:
        item: as the source names it.
        fingerprint: of content and configuration.
        stages: to run.
        size_bytes: of its file; None if unknown.
        separate_channels: recognize each channel for itself, instead of their mix.
    """

    item: BatchItem
    fingerprint: str
    stages: frozenset[Stage]
    size_bytes: int | None
    separate_channels: bool = False


@dataclass(slots=True)
class PendingRecordings:
    """The recordings of a source by what is left to do.

    Attributes:
        works: recordings to process.
        failures: recordings that fail before processing.
        num_done: recordings with a current transcript.
        num_given_up: recordings that failed permanently and have not changed.
        fingerprints: of all recordings whose file exists, by id.
    """

    works: list[Work] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    num_done: int = 0
    num_given_up: int = 0
    fingerprints: dict[str, str] = field(default_factory=dict)


def find_pending(
    items: Sequence[BatchItem],
    store: OutputStore,
    config_digest: str,
    settings: Settings,
    *,
    retry_failed: bool,
) -> PendingRecordings:
    """Compares the items of a source with the existing results.

    Args:
        items: of the source.
        store: of the outputs.
        config_digest: `config_fingerprint`.
        settings: of the job.
        retry_failed: retry recordings that failed permanently.
    """
    finished = store.finished()
    given_up = {} if retry_failed else _given_up(store)
    pending = PendingRecordings()
    with ThreadPoolExecutor(_STAT_THREADS) as threads:
        for item, info in zip(items, threads.map(stat_item, items), strict=True):
            if isinstance(info, Failure):
                pending.failures.append(info)
                continue
            if "speakers" not in settings.stages:
                item = replace(item, speakers=None)
            separate = (item.channels or settings.batch.channels) == "separate"
            fingerprint = item_fingerprint(
                config_digest,
                item,
                info,
                max_separate_channels=settings.audio.max_separate_channels if separate else None,
            )
            pending.fingerprints[item.id] = fingerprint
            if finished.get(item.id) == fingerprint:
                pending.num_done += 1
            elif (refused := _refused(item, fingerprint, settings)) is not None:
                pending.failures.append(refused)
            elif given_up.get(item.id) == fingerprint:
                pending.num_given_up += 1
            else:
                stages = frozenset(item.stages or settings.stages)
                pending.works.append(Work(item, fingerprint, stages, info.size_bytes, separate))
    return pending


def stat_item(item: BatchItem) -> FileInfo | Failure:
    """Returns size and version of an item's file, or why it cannot be read."""
    retrying = Retrying(
        stop=stop_after_attempt(_STAT_ATTEMPTS),
        wait=_BACKOFF,
        retry=retry_if_exception(_may_pass),
        reraise=True,
    )
    try:
        return retrying(file_info, item)
    except FileNotFoundError as error:
        missing = f"there is no such file: {error}"
        return Failure(item.id, item.uri, NOT_FOUND, missing, False, 1)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return Failure(item.id, item.uri, READ_ERROR, reason, False, _STAT_ATTEMPTS)


def _may_pass(error: BaseException) -> bool:
    # Every store has its own errors for a connection that breaks.
    return isinstance(error, Exception) and not isinstance(error, FileNotFoundError)


def _given_up(store: OutputStore) -> Mapping[str, str]:
    """Returns the fingerprints of permanently failed recordings, by id."""
    return {one.id: one.fingerprint for one in store.failures() if one.permanent}


def _refused(item: BatchItem, fingerprint: str, settings: Settings) -> Failure | None:
    """Returns why these settings cannot process an item; None if they can."""
    kind = reason = ""
    languages = settings.recognizer.languages
    unknown = [stage for stage in item.stages or () if stage not in settings.stages]
    if item.language not in (None, *languages):
        kind = "unsupported_language"
        reason = f"language {item.language} is not one of the recognizer's: {', '.join(languages)}"
    elif unknown:
        kind = "stage_not_deployed"
        reason = f"the job does not run {', '.join(unknown)}"
    if not kind:
        return None
    return Failure(item.id, item.uri, kind, reason, True, 0, fingerprint)
