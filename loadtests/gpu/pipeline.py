"""From samples to punctuated text; decoding of files is not counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from loadtests.bench.options import open_named, short
from loadtests.bench.peers import PeerMissing, as_float, auto_model
from loadtests.gpu.engines import DTYPE, Ours, Span, SpeechFinders, punctuator, words
from loadtests.gpu.options import Trial
from loadtests.gpu.recognizer import quickest
from loadtests.harness.child import rounds
from loadtests.harness.report import Cell, Report
from serve_app.core.records import SAMPLE_RATE_HZ, Pcm
from serve_app.transcript.cer import character_error_rate
from serve_app.transcript.punctuation import punctuate_all

OURS = "Paraserve, with VAD"
_AUTO = "AutoModel all in one, batch_size_s="


class OurPipeline:
    """VAD in processes, recognizer and punctuation on the device.

    Args:
        options: packs and limits.
        finders: search for speech.
    """

    def __init__(self, options: Trial, finders: SpeechFinders) -> None:
        self._finders = finders
        self._recognizer = Ours(open_named(options.pack), options, DTYPE)
        self._punctuator = punctuator(options)

    def read(self, recordings: list[Pcm]) -> str:
        """From samples to text, the search for speech included."""
        return self.read_found(recordings, self._finders.search(recordings))

    def read_found(self, recordings: list[Pcm], found: Iterator[list[Span]]) -> str:
        """From samples and the speech in them to text."""
        counts: list[int] = []

        def segments() -> Iterator[Pcm]:
            for pcm, spans in zip(recordings, found, strict=True):
                counts.append(len(spans))
                yield from (pcm[start:end] for start, end in spans)

        heard = [words(result) for result in self._recognizer.recognize(segments())]
        left = iter(heard)
        texts = [[word for _ in range(count) for word in next(left)] for count in counts]
        return "".join(
            word + mark for text in punctuate_all(self._punctuator, texts) for word, mark in text
        )


def compare_pipelines(options: Trial, recordings: list[Pcm], report: Report) -> None:
    """Runs the pipelines in turns on the same recordings."""
    audio_s = sum(map(len, recordings)) / SAMPLE_RATE_HZ
    table = report.table(
        f"From samples to punctuated text, {short(options.pack)} and "
        f"{short(options.punctuation_pack)}: {audio_s:.0f} s in {len(recordings)} recordings, "
        f"{DTYPE}, median of {options.repeats}",
        ("pipeline", "wall s", "CPU s of this process", "RTFx", "times AutoModel", "CER"),
        (
            "counted: search for speech (where the row says so), features, recognition, "
            "times of tokens, punctuation; not counted: decoding of files, HTTP",
            f"speech is searched for in {options.vad_processes} processes on the CPU beside it",
        ),
    )
    with SpeechFinders(options.vad_pack, options.vad_processes) as finders:
        ours = OurPipeline(options, finders)
        found = list(finders.search(recordings))
        works: dict[str, Callable[[], str]] = {
            "Paraserve, speech known": lambda: ours.read_found(recordings, iter(found)),
            OURS: partial(ours.read, recordings),
        }
        texts = {name: work() for name, work in works.items()}
        if options.peers:
            for name, work, text in _auto(options, recordings, report):
                works[name], texts[name] = work, text
        error_rates = {
            name: f"{character_error_rate(texts[OURS], text):.2%}" for name, text in texts.items()
        }
        for costs in rounds(works, options.repeats):
            rival_s = next((cost.wall_s for n, cost in costs.items() if n.startswith(_AUTO)), None)
            rows: list[tuple[Cell, ...]] = [
                (
                    name,
                    cost.wall_s,
                    cost.cpu_s,
                    audio_s / cost.wall_s,
                    f"{rival_s / cost.wall_s:.2f}" if rival_s else None,
                    error_rates[name],
                )
                for name, cost in costs.items()
            ]
            report.rows(rows, table)


def _auto(
    options: Trial, recordings: list[Pcm], report: Report
) -> Iterator[tuple[str, Callable[[], str], str]]:
    """Yields AutoModel all in one, a recording at a time, at its quickest batch_size_s."""
    try:
        model: Any = auto_model(
            open_named(options.pack),
            options.device,
            torch.get_num_threads(),
            vad_model=str(open_named(options.vad_pack).directory),
            vad_kwargs={"dynamic_silence": False},
            punc_model=str(open_named(options.punctuation_pack).directory),
        )
    except PeerMissing as error:
        report.note(f"AutoModel was not run: {error}")
        return

    def read(batch_size_s: int, chosen: list[Pcm]) -> str:
        answers = (model.generate(as_float(pcm), batch_size_s=batch_size_s) for pcm in chosen)
        return "".join(one[0]["text"].replace(" ", "") if one else "" for one in answers)

    works = {
        size: (partial(read, size, recordings[:1]), partial(read, size, recordings))
        for size in options.batch_sizes_s
    }
    best = quickest("AutoModel, batch_size_s", works, report)
    if best is not None:
        yield f"{_AUTO}{best[0]}", works[best[0]][1], best[1]
