"""From a file's bytes to punctuated text on one core, and where the time goes."""

from __future__ import annotations

import asyncio
import io
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import soundfile
import torch

from loadtests.bench.options import Options, as_flac, open_named, short, text_of
from loadtests.bench.peers import PeerMissing, as_float, auto_model
from loadtests.harness.child import Cost, rounds, send_tables, show_child
from loadtests.harness.report import Cell, Report, Table
from serve_app.audio import AudioDecoder
from serve_app.core.records import FileBytes
from serve_app.inference.local import LocalTranscriber
from serve_app.transcript.cer import character_error_rate

OURS, AUTO = "Paraserve, in one process", "AutoModel, all in one"
PROFILE = ("decode", "VAD", "features", "encoder", "predictor", "decoder", "punctuation")


def compare(options: Options, report: Report) -> None:
    """Runs both pipelines in one fresh process, in turns, on the same core."""
    show_child(report, "loadtests.bench.stages", options.to_json())


def measure(options: Options) -> None:
    """Runs in the child process."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    audio = as_flac(options.samples())
    pipelines: dict[str, _Pipeline] = {OURS: _Ours(options, audio)}
    notes = ["AutoModel computes no times of words here; Paraserve does"]
    try:
        pipelines[AUTO] = _Auto(options, audio)
    except PeerMissing as error:
        notes = [f"AutoModel was not run: {error}"]
    texts = {name: pipeline.text() for name, pipeline in pipelines.items()}  # warms up
    for pipeline in pipelines.values():
        pipeline.watch.spent_s.clear()
    works = {name: pipeline.text for name, pipeline in pipelines.items()}
    for number, costs in enumerate(rounds(works, options.repeats), 1):
        profiles = {
            name: _profile(pipeline.watch.spent_s, costs[name], number)
            for name, pipeline in pipelines.items()
        }
        bars = [
            (f"CPU s: {name}", list(profile)[:-1], list(profile.values())[:-1])
            for name, profile in profiles.items()
        ]
        totals = _totals(options, costs, texts, notes)
        send_tables(totals, _shares(options, costs, profiles), bars=bars)
    for pipeline in pipelines.values():
        pipeline.close()


def _totals(
    options: Options, costs: dict[str, Cost], texts: dict[str, str], notes: list[str]
) -> Table:
    reference = list(costs)[-1]
    return Table(
        f"From bytes to text, {options.seconds:.0f} s of FLAC, {short(options.pack)} and "
        f"{short(options.punctuation_pack)}, one core, median of {options.repeats}",
        ("pipeline", "wall s", "CPU s", "RTFx", "against AutoModel", "CER against AutoModel"),
        [
            (
                name,
                cost.wall_s,
                cost.cpu_s,
                options.seconds / cost.wall_s,
                costs[reference].cpu_s / cost.cpu_s,
                f"{character_error_rate(texts[reference], texts[name]):.2%}",
            )
            for name, cost in costs.items()
        ],
        notes,
    )


def _profile(spent_s: dict[str, float], cost: Cost, repeats: int) -> dict[str, float]:
    """Returns CPU s by stage, and what no stage accounts for; clocks differ, so at least 0."""
    stages = {stage: spent_s.get(stage, 0.0) / repeats for stage in PROFILE}
    rest_s = max(0.0, cost.cpu_s - sum(stages.values()))
    return {**stages, "rest": rest_s, "all": cost.cpu_s}


def _shares(
    options: Options, costs: dict[str, Cost], profiles: dict[str, dict[str, float]]
) -> Table:
    columns = ["stage"]
    for name in profiles:
        columns += [f"{name}: CPU s", "share", "RTFx a core"]
    rows: list[tuple[Cell, ...]] = []
    for stage in (*PROFILE, "rest", "all"):
        row: list[Cell] = [stage]
        for name, profile in profiles.items():
            spent_s = profile[stage]
            speed = f"{options.seconds / spent_s:,.0f}" if spent_s > 0 else None
            row += [spent_s, f"{spent_s / costs[name].cpu_s:.1%}", speed]
        rows.append(tuple(row))
    return Table("Where the CPU seconds go", tuple(columns), rows)


class Stopwatch:
    """Adds up the CPU time of methods, by the thread that runs them."""

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = {}

    def watch(self, owner: object, method: str, stage: str) -> None:
        """Replaces a method of an object, or of a class, by one that is timed.

        Of a method that returns an iterator, what each step takes is timed.
        """
        original: Callable[..., object] = getattr(owner, method)

        def timed(*args: object, **kwargs: object) -> object:
            result = self._timed(stage, lambda: original(*args, **kwargs))
            return steps(result) if isinstance(result, Iterator) else result

        def steps(iterator: Iterator[object]) -> Iterator[object]:
            while (step := self._timed(stage, lambda: next(iterator, _END))) is not _END:
                yield step

        setattr(owner, method, timed)

    def _timed(self, stage: str, work: Callable[[], object]) -> object:
        before_s = time.thread_time()
        try:
            return work()
        finally:
            spent_s = time.thread_time() - before_s
            self.spent_s[stage] = self.spent_s.get(stage, 0.0) + spent_s


_END = object()


class _Pipeline(ABC):
    """A file's bytes to its text; `watch` sums up its stages."""

    def __init__(self) -> None:
        self.watch = Stopwatch()

    @abstractmethod
    def text(self) -> str:
        """Runs it all once."""

    def close(self) -> None:  # noqa: B027 - most have nothing to end
        """Ends what runs in the background."""

    def watch_network(self, network: Any) -> None:
        for stage in ("encoder", "predictor", "decoder"):
            self.watch.watch(getattr(network, stage), "forward", stage)


class _Ours(_Pipeline):
    def __init__(self, options: Options, audio: FileBytes) -> None:
        super().__init__()
        self._audio = audio
        self._transcriber = LocalTranscriber(options.settings())
        self._loop = asyncio.new_event_loop()
        # Reaches inside, since no one but a benchmark asks for the steps of an engine.
        inside: Any = self._transcriber
        (cached,) = inside._recognizer._cached.values()
        engine = cached.model._engine
        self.watch_network(engine._net)
        self.watch.watch(engine, "_features", "features")
        self.watch.watch(inside._punctuator, "label", "punctuation")
        stream = type(inside._vad.open())
        self.watch.watch(stream, "push", "VAD")
        self.watch.watch(stream, "finish", "VAD")
        self.watch.watch(AudioDecoder, "steps", "decode")
        # FunASR calls the module, Paraserve one of its methods.
        self.watch.watch(engine._net.decoder, "represent", "decoder")

    def text(self) -> str:
        return self._loop.run_until_complete(text_of(self._transcriber, self._audio))

    def close(self) -> None:
        self._loop.run_until_complete(self._transcriber.__aexit__(None, None, None))
        self._loop.close()


class _Auto(_Pipeline):
    def __init__(self, options: Options, audio: FileBytes) -> None:
        super().__init__()
        self._bytes = audio.tobytes()
        max_segment_ms = round(options.settings().segmenter.max_segment_s * 1000)
        self._model = auto_model(
            open_named(options.pack),
            vad_model=str(open_named(options.vad_pack).directory),
            # Its default cuts recordings into a minute and crumbs.
            vad_kwargs={"dynamic_silence": False, "max_single_segment_time": max_segment_ms}
            | {"ncpu": 1},
            punc_model=str(open_named(options.punctuation_pack).directory),
            punc_kwargs={"ncpu": 1},
        )
        self.watch_network(self._model.model)
        # The class, since each call works on a copy; the VAD's is another.
        self.watch.watch(type(self._model.kwargs["frontend"]), "forward", "features")
        self.watch.watch(self._model.vad_model, "inference", "VAD")
        self.watch.watch(self._model.punc_model, "inference", "punctuation")
        self.watch.watch(self, "_decode", "decode")

    def text(self) -> str:
        answers = self._model.generate(self._decode())
        return str(answers[0]["text"]) if answers else ""

    def _decode(self) -> object:
        # soundfile is the fastest that FunASR could be given the samples by.
        samples, _ = soundfile.read(io.BytesIO(self._bytes), dtype="int16")
        return as_float(samples)


if __name__ == "__main__":
    measure(Options.from_json(sys.argv[1]))
