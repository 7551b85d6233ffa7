"""Batch transcription: thousands of recordings in one resumable job.

`run_batch` is for notebooks and scripts; `paraserve batch` and `python -m serve_app.batch`
do the same on the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from serve_app.batch.report_data import BatchReport
    from serve_app.core.records import Stage
    from serve_app.settings import Settings
    from serve_app.settings.batch import TextFormat

__all__ = ["run_batch"]


def run_batch(
    source: str,
    output: str,
    *,
    settings: Settings | None = None,
    stages: Sequence[Stage] | None = None,
    formats: Sequence[TextFormat] | None = None,
    itn: bool | None = None,
    retry_failed: bool = False,
    speakers: int | str | None = None,
    channels: Literal["mix", "separate"] | None = None,
) -> BatchReport:
    """Transcribes every recording of a source; a repeated call resumes.

    Uses the Ray cluster that this process is connected to, else the one at
    `settings.cluster.address` or RAY_ADDRESS, else a new one on this machine.

    Args:
        source: manifest (JSONL, CSV), directory, glob or bucket prefix.
        output: directory or bucket prefix of the results.
        settings: None for the demo profile.
        stages: to run; None for all in the settings.
        formats: to write beside JSON; None for those of the settings.
        itn: write numbers in digits; None for the value of the settings.
        retry_failed: retry recordings that failed permanently.
        speakers: label who speaks: the number of speakers, a range such as "2-4", or "any";
            None for labels only if the stages have `speakers`.
        channels: "mix", or "separate" to recognize each channel for itself; None for the value
            of the settings.

    Returns:
        The report, with counts in `report.totals` and failed recordings in `report.failures`.
        These raise no error; `batch.accept_failures` only affects exit codes.

    Raises:
        ManifestError: the source is invalid or empty.
        PackError: a model cannot be used.
        ConfigurationError: the settings do not support the request.
    """
    from serve_app.batch.job import BatchJob, JobOrder
    from serve_app.settings import DEFAULT_PROFILE, load_settings

    order = JobOrder(
        source,
        output,
        None if stages is None else tuple(stages),
        None if formats is None else tuple(formats),
        itn,
        retry_failed,
        None if speakers is None else str(speakers),
    )
    settings = settings or load_settings(DEFAULT_PROFILE)
    if channels is not None:
        batch = settings.batch.model_copy(update={"channels": channels})
        settings = settings.model_copy(update={"batch": batch})
    return BatchJob(settings, order).run()
