"""The recognizer alone: segments in, tokens out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import torch

from loadtests.bench.measuring import hold, interleaved, machine, report, run_child
from loadtests.bench.options import Options, as_flac, open_named, short
from loadtests.bench.peers import Auto, Onnx, Packed, Peer, PeerMissing, auto_model, exported
from loadtests.bench.tables import Bar, Comparison, Table
from serve_app.core.records import SAMPLE_RATE_HZ, Pcm
from serve_app.inference.loading import load_vad, segmentation_options
from serve_app.transcript.cer import character_error_rate
from serve_app.transcript.segmentation import Segmentation

REFERENCE = "AutoModel, one segment a call"


@dataclass(frozen=True, slots=True)
class PeerResult:
    """One row; `num_agreeing` segments have the reference's tokens, one by one."""

    name: str
    wall_s: float
    cpu_s: float
    num_agreeing: int
    error_rate: float


@dataclass(frozen=True, slots=True)
class EngineResult:
    audio_s: float
    num_segments: int
    num_tokens: int
    machine: str
    peers: tuple[PeerResult, ...]
    notes: tuple[str, ...]

    def to_json(self) -> list[object]:
        peers = [astuple(row) for row in self.peers]
        head = [self.audio_s, self.num_segments, self.num_tokens, self.machine]
        return [*head, peers, list(self.notes)]

    @classmethod
    def from_json(cls, result: object) -> EngineResult:
        if not isinstance(result, list):
            raise TypeError("not a result")
        audio_s, num_segments, num_tokens, machine, peers, notes = result
        rows = tuple(PeerResult(*row) for row in peers)
        return cls(audio_s, num_segments, num_tokens, machine, rows, tuple(notes))


def compare(options: Options, command: str) -> Comparison:
    """Runs all peers in one fresh process, in turns."""
    child = run_child("loadtests.bench.engine", [options.to_json()])
    result = EngineResult.from_json(child)
    reference = next((row for row in result.peers if row.name == REFERENCE), result.peers[0])
    rows = tuple(
        (
            row.name,
            row.wall_s,
            row.cpu_s,
            result.audio_s / row.wall_s,
            result.audio_s / row.cpu_s,
            reference.cpu_s / row.cpu_s,
            f"{row.num_agreeing}/{result.num_segments}",
            f"{row.error_rate:.2%}",
        )
        for row in result.peers
    )
    table = Table(
        f"Recognizer {short(options.pack)}: {result.audio_s:.0f} s of speech in "
        f"{result.num_segments} segments, {result.num_tokens / result.audio_s:.1f} tokens/s, "
        f"median of {options.repeats}",
        (
            "peer",
            "wall s",
            "CPU s",
            "RTFx",
            "RTFx a core",
            "against reference",
            "same segments",
            "CER",
        ),
        rows,
        (
            f"reference of the ratio (of CPU seconds), the segments and the CER: {reference.name}",
            *result.notes,
        ),
    )
    names = tuple(row.name for row in result.peers)
    speeds = tuple(result.audio_s / row.cpu_s for row in result.peers)
    chart = Bar("seconds of speech a CPU second", names, speeds)
    return Comparison("engine", command, result.machine, (table,), (chart,))


def speech(options: Options) -> list[Pcm]:
    """What the VAD hands to the recognizer."""
    settings = options.settings()
    vad = load_vad(settings).engine
    cuts = Segmentation(as_flac(options.samples()), vad, segmentation_options(settings))
    return [cut.pcm for step in cuts.steps() for cut in step]


def measure(options: Options) -> EngineResult:
    """Runs in the child process."""
    torch.set_num_threads(1)
    before = machine()
    segments = speech(options)
    notes: list[str] = []
    peers = _peers(options, notes)
    heard = {name: peer.hear(segments) for name, peer in peers.items()}  # warms up, too
    works: dict[str, Callable[[], object]] = {
        name: partial(peer.hear, segments) for name, peer in peers.items()
    }
    costs = interleaved(works, options.repeats)
    expected = heard.get(REFERENCE, next(iter(heard.values())))
    rows = tuple(
        PeerResult(
            name,
            cost.wall_s,
            cost.cpu_s,
            sum(a == b for a, b in zip(heard[name], expected, strict=True)),
            character_error_rate("".join(expected), "".join(heard[name])),
        )
        for name, cost in costs.items()
    )
    audio_s = sum(map(len, segments)) / SAMPLE_RATE_HZ
    num_tokens = sum(map(len, heard["Paraserve, packed"]))
    return EngineResult(audio_s, len(segments), num_tokens, before, rows, tuple(notes))


def _peers(options: Options, notes: list[str]) -> dict[str, Peer]:
    """Loads every peer that runs here; a note says why another does not."""
    pack = open_named(options.pack)
    peers: dict[str, Peer] = {"Paraserve, packed": Packed(pack)}

    def add(name: str, load: Callable[[], Peer]) -> None:
        try:
            peers[name] = load()
        except PeerMissing as error:
            notes.append(f"{name} was not run: {error}")

    for dtype in ("bfloat16", "int8"):
        add(f"Paraserve, packed {dtype}", partial(Packed, pack, dtype))
    try:
        model = auto_model(pack)
    except PeerMissing as error:
        notes.append(f"FunASR's runtimes were not run: {error}")
        return peers
    peers[REFERENCE] = Auto(model)
    peers[f"AutoModel, batches of {options.batch_size}"] = Auto(model, options.batch_size)
    scratch = Path(options.scratch)
    notes.append("funasr-onnx drops the last token of a segment; trained, that is the end mark")
    add("funasr-onnx", lambda: Onnx(exported(pack, model, scratch), quantize=False))
    add("funasr-onnx, int8", lambda: Onnx(exported(pack, model, scratch), quantize=True))
    return peers


if __name__ == "__main__":
    report(measure(Options.from_json(sys.argv[1])).to_json())
    hold()
