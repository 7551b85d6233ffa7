"""From a file's bytes to punctuated text on one core, and where the time goes."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import soundfile
import torch

from loadtests.bench.measuring import Stopwatch, hold, interleaved, machine, report, run_child
from loadtests.bench.options import Options, as_flac, open_named, short
from loadtests.bench.peers import PeerMissing, as_float, auto_model
from loadtests.bench.tables import Bar, Comparison, Table
from serve_app.audio import AudioDecoder
from serve_app.core.records import STAGES, FileBytes
from serve_app.inference.local import LocalTranscriber
from serve_app.transcript.cer import character_error_rate
from serve_app.transcript.transcript import collect

OURS, AUTO = "Paraserve, in one process", "AutoModel, all in one"
PROFILE = ("decode", "VAD", "features", "encoder", "predictor", "decoder", "punctuation")


@dataclass(frozen=True, slots=True)
class PipelineResult:
    """One pipeline: medians, and mean CPU seconds of each entry of PROFILE."""

    name: str
    wall_s: float
    cpu_s: float
    text: str
    profile_s: tuple[float, ...]

    @classmethod
    def from_json(cls, row: Any) -> PipelineResult:
        name, wall_s, cpu_s, text, profile_s = row
        return cls(name, wall_s, cpu_s, text, tuple(profile_s))


def compare(options: Options, command: str) -> Comparison:
    """Runs both pipelines in one fresh process, in turns, on the same core."""
    child: Any = run_child("loadtests.bench.stages", [options.to_json()])
    where, notes, rows = child
    results = [PipelineResult.from_json(row) for row in rows]
    reference = results[-1]
    totals = Table(
        f"From bytes to text, {options.seconds:.0f} s of FLAC, {short(options.pack)} and "
        f"{short(options.punctuation_pack)}, one core, median of {options.repeats}",
        ("pipeline", "wall s", "CPU s", "RTFx", "against AutoModel", "CER against AutoModel"),
        tuple(
            (
                row.name,
                row.wall_s,
                row.cpu_s,
                options.seconds / row.wall_s,
                reference.cpu_s / row.cpu_s,
                f"{character_error_rate(reference.text, row.text):.2%}",
            )
            for row in results
        ),
        tuple(notes),
    )
    charts = tuple(
        Bar(f"CPU s: {row.name}", (*PROFILE, "rest"), tuple(_with_rest(row))) for row in results
    )
    return Comparison("stages", command, where, (totals, _profile(options, results)), charts)


def _profile(options: Options, results: list[PipelineResult]) -> Table:
    columns = ["stage"]
    for row in results:
        columns += [f"{row.name}: CPU s", "share", "RTFx a core"]
    lines = []
    for index, stage in enumerate((*PROFILE, "rest", "all")):
        line: list[str | float] = [stage]
        for row in results:
            spent_s = [*_with_rest(row), row.cpu_s][index]
            speed = f"{options.seconds / spent_s:,.0f}" if spent_s > 0 else "-"
            line += [spent_s, f"{spent_s / row.cpu_s:.1%}", speed]
        lines.append(tuple(line))
    return Table("Where the CPU seconds go", tuple(columns), tuple(lines))


def _with_rest(row: PipelineResult) -> list[float]:
    """The profile, and what no stage accounts for; clocks differ, so at least 0."""
    return [*row.profile_s, max(0.0, row.cpu_s - sum(row.profile_s))]


def measure(options: Options) -> list[object]:
    """Runs in the child process."""
    where = machine()
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
    works: dict[str, Callable[[], object]] = {
        name: pipeline.text for name, pipeline in pipelines.items()
    }
    costs = interleaved(works, options.repeats)
    rows = [
        [
            name,
            costs[name].wall_s,
            costs[name].cpu_s,
            texts[name],
            [pipeline.watch.spent_s.get(stage, 0.0) / options.repeats for stage in PROFILE],
        ]
        for name, pipeline in pipelines.items()
    ]
    for pipeline in pipelines.values():
        pipeline.close()
    return [where, notes, rows]


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
        self.watch.watch_iteration(AudioDecoder, "steps", "decode")
        # FunASR calls the module, Paraserve one of its methods.
        self.watch.watch(engine._net.decoder, "represent", "decoder")

    def text(self) -> str:
        events = self._transcriber.transcribe(self._audio, frozenset(STAGES))
        return self._loop.run_until_complete(collect(events)).text

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
    report(measure(Options.from_json(sys.argv[1])))
    hold()
