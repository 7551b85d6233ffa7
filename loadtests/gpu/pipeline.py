"""From samples to punctuated text; decoding of files is not counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

from loadtests.bench.measuring import interleaved
from loadtests.bench.options import open_named, short
from loadtests.bench.peers import PeerMissing
from loadtests.bench.tables import Bar, Table
from loadtests.gpu.contestants import AutoAllInOne, Ours, auto_model, words
from loadtests.gpu.options import Trial
from loadtests.gpu.speech import Span, SpeechFinders
from serve_app.core.records import SAMPLE_RATE_HZ, Pcm
from serve_app.engines.cuda.ct_transformer import GpuCtTransformer
from serve_app.engines.cuda.options import GpuOptions as EngineOptions
from serve_app.transcript.cer import character_error_rate
from serve_app.transcript.punctuation import punctuate_all

DTYPE = "bfloat16"


class OurPipeline:
    """VAD in processes, recognizer and punctuation on the device.

    Args:
        options: packs and limits.
        finders: search for speech.
    """

    def __init__(self, options: Trial, finders: SpeechFinders) -> None:
        self._finders = finders
        self._recognizer = Ours(open_named(options.pack), options, DTYPE)
        self._punctuator = GpuCtTransformer(
            open_named(options.punctuation_pack),
            EngineOptions(
                device=options.device, dtype=DTYPE, max_batch_rows=options.max_batch_words
            ),
        )

    def read(self, recordings: list[Pcm]) -> list[str]:
        """From samples to text, the search for speech included."""
        return self.read_found(recordings, self._finders.search(recordings))

    def read_found(self, recordings: list[Pcm], found: Iterator[list[Span]]) -> list[str]:
        """From samples and the speech in them to text."""
        counts: list[int] = []

        def segments() -> Iterator[Pcm]:
            for pcm, spans in zip(recordings, found, strict=True):
                counts.append(len(spans))
                yield from (pcm[start:end] for start, end in spans)

        heard = [words(result) for result in self._recognizer.recognize(segments())]
        texts: list[list[str]] = []
        at = 0
        for count in counts:
            texts.append([word for result in heard[at : at + count] for word in result])
            at += count
        return [
            "".join(word + mark for word, mark in text)
            for text in punctuate_all(self._punctuator, texts)
        ]


def compare_pipelines(options: Trial, recordings: list[Pcm]) -> tuple[Table, Bar]:
    """Runs the pipelines in turns on the same recordings."""
    notes = [
        "counted: search for speech (where the row says so), features, recognition, "
        "times of tokens, punctuation; not counted: decoding of files, HTTP",
        f"speech is searched for in {options.vad_processes} processes on the CPU beside it",
    ]
    with SpeechFinders(options.vad_pack, options.vad_processes) as finders:
        ours = OurPipeline(options, finders)
        found = list(finders.search(recordings))
        works: dict[str, Callable[[], object]] = {
            "Paraserve, speech known": lambda: ours.read_found(recordings, iter(found)),
            "Paraserve, with VAD": partial(ours.read, recordings),
        }
        texts = {"Paraserve, with VAD": "".join(ours.read(recordings))}
        texts["Paraserve, speech known"] = "".join(ours.read_found(recordings, iter(found)))
        if options.peers:
            _add_auto(options, recordings, works, texts, notes)
        costs = interleaved(works, options.repeats)
    audio_s = sum(map(len, recordings)) / SAMPLE_RATE_HZ
    rivals = [cost.wall_s for name, cost in costs.items() if name.startswith("AutoModel")]
    expected = texts["Paraserve, with VAD"]
    rows = tuple(
        (
            name,
            cost.wall_s,
            cost.cpu_s,
            audio_s / cost.wall_s,
            f"{rivals[0] / cost.wall_s:.2f}" if rivals else "-",
            f"{character_error_rate(expected, texts[name]):.2%}",
        )
        for name, cost in costs.items()
    )
    table = Table(
        f"From samples to punctuated text, {short(options.pack)} and "
        f"{short(options.punctuation_pack)}: {audio_s:.0f} s in {len(recordings)} recordings, "
        f"{DTYPE}, median of {options.repeats}",
        ("pipeline", "wall s", "CPU s of this process", "RTFx", "times AutoModel", "CER"),
        rows,
        tuple(notes),
    )
    speeds = tuple(audio_s / cost.wall_s for cost in costs.values())
    return table, Bar("seconds of audio a second", tuple(costs), speeds)


def _add_auto(
    options: Trial,
    recordings: list[Pcm],
    works: dict[str, Callable[[], object]],
    texts: dict[str, str],
    notes: list[str],
) -> None:
    """AutoModel all in one, at the batch_size_s that is quickest in one run each."""
    try:
        model = auto_model(
            open_named(options.pack),
            options,
            vad_model=str(open_named(options.vad_pack).directory),
            vad_kwargs={"dynamic_silence": False},
            punc_model=str(open_named(options.punctuation_pack).directory),
        )
    except PeerMissing as error:
        notes.append(f"AutoModel was not run: {error}")
        return
    best: tuple[float, int, str] | None = None
    for batch_size_s in options.batch_sizes_s:
        auto = AutoAllInOne(model, batch_size_s)
        try:
            auto.read(recordings[:1])  # warms up
            started_s = time.perf_counter()
            heard = "".join(auto.read(recordings))
            spent_s = time.perf_counter() - started_s
        except Exception as error:  # whatever FunASR raises belongs in the report
            notes.append(f"AutoModel, batch_size_s={batch_size_s} failed: {error!r}")
            continue
        notes.append(f"AutoModel, batch_size_s={batch_size_s}: {spent_s:.2f} s once")
        if best is None or spent_s < best[0]:
            best = (spent_s, batch_size_s, heard)
    if best is not None:
        name = f"AutoModel all in one, batch_size_s={best[1]}"
        works[name] = partial(AutoAllInOne(model, best[1]).read, recordings)
        texts[name] = best[2]
