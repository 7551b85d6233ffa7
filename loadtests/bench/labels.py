"""What speaker labels cost on top of the whole pipeline, in one process on one core."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

import torch

from loadtests.bench.options import Options, as_flac, open_named, short
from loadtests.harness.child import Cost, rounds, send_tables, show_child
from loadtests.harness.report import Cell, Report, Table
from serve_app.core.errors import ConfigurationError
from serve_app.core.records import FileBytes, Stage
from serve_app.core.speakers import SpeakerOptions
from serve_app.engines.campplus import CampplusEngine
from serve_app.inference.local import LocalTranscriber
from serve_app.inference.voices import LocalVoices
from serve_app.settings import Settings
from serve_app.transcript.transcript import Transcript, collect

WITHOUT, WITH = "without labels", "with labels"
ROUNDED = "with labels, speaker model in bfloat16"
_STAGES: tuple[Stage, ...] = ("vad", "asr", "punctuation", "speakers")


def compare(options: Options, report: Report) -> None:
    """Runs all in turns, in one fresh process."""
    show_child(report, "loadtests.bench.labels", options.to_json())


def measure(options: Options) -> None:
    """Runs in the child process."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    audio = as_flac(options.samples())
    loop = asyncio.new_event_loop()
    transcriber = LocalTranscriber(_settings(options))

    def work(speakers: SpeakerOptions | None) -> Callable[[], Transcript]:
        return lambda: loop.run_until_complete(_transcript(transcriber, audio, speakers))

    works = {WITHOUT: work(None), WITH: work(SpeakerOptions())}
    notes = []
    try:
        works[ROUNDED] = _rounded(options, transcriber, works[WITH])
    except ConfigurationError as error:
        notes.append(f"bfloat16 was not run: {error}")
    found = {name: run() for name, run in works.items()}  # warms up, too
    if len({transcript.text for transcript in found.values()}) > 1:
        notes.append("the texts differ")
    for costs in rounds(works, options.repeats):
        bars = [("CPU s", list(costs), [cost.cpu_s for cost in costs.values()])]
        send_tables(_table(options, costs, found, notes), bars=bars)
    loop.run_until_complete(transcriber.__aexit__(None, None, None))
    loop.close()


def _rounded(
    options: Options, transcriber: LocalTranscriber, work: Callable[[], Transcript]
) -> Callable[[], Transcript]:
    """Returns the work with the speaker model in bfloat16.

    Raises:
        ConfigurationError: the CPU has no bfloat16.
    """
    voices = LocalVoices(CampplusEngine(open_named(options.speaker_pack), dtype="bfloat16"))
    # Reaches inside: a second pipeline would hold the other models twice.
    inside: Any = transcriber

    def run() -> Transcript:
        before, inside._voices = inside._voices, voices
        try:
            return work()
        finally:
            inside._voices = before

    return run


def _settings(options: Options) -> Settings:
    settings = options.settings()
    embedder = settings.speaker_embedder.model_copy(update={"pack": options.speaker_pack})
    return settings.model_copy(update={"stages": _STAGES, "speaker_embedder": embedder})


async def _transcript(
    transcriber: LocalTranscriber, audio: FileBytes, speakers: SpeakerOptions | None
) -> Transcript:
    return await collect(transcriber.transcribe(audio, frozenset(_STAGES), speakers=speakers))


def _table(
    options: Options, costs: dict[str, Cost], found: dict[str, Transcript], notes: list[str]
) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            cost.wall_s,
            cost.cpu_s,
            options.seconds / cost.cpu_s,
            f"{cost.cpu_s / costs[WITHOUT].cpu_s:.3f}",
            str(_num_speakers(found[name])),
        )
        for name, cost in costs.items()
    ]
    return Table(
        f"From bytes to text, {options.seconds:.0f} s of FLAC, {short(options.pack)}, "
        f"{short(options.punctuation_pack)} and {short(options.speaker_pack)}, one core, "
        f"median of {options.repeats}",
        ("pipeline", "wall s", "CPU s", "RTFx a core", "CPU against without", "speakers"),
        rows,
        notes,
    )


def _num_speakers(transcript: Transcript) -> int:
    return 0 if transcript.diarization is None else len(transcript.diarization.labels)


if __name__ == "__main__":
    measure(Options.from_json(sys.argv[1]))
