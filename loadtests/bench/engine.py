"""The recognizer alone: segments in, tokens out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from loadtests.bench.options import Options, as_flac, open_named, short
from loadtests.bench.peers import Auto, Onnx, Packed, Peer, PeerMissing, auto_model, exported
from loadtests.harness.child import rounds, send_tables, show_child
from loadtests.harness.report import Cell, Report, Table
from serve_app.core.records import SAMPLE_RATE_HZ, Pcm
from serve_app.inference.loading import load_vad, segmentation_options
from serve_app.transcript.cer import character_error_rate
from serve_app.transcript.segmentation import Segmentation

REFERENCE = "AutoModel, one segment a call"
_COLUMNS = (
    *("peer", "wall s", "CPU s", "RTFx", "RTFx a core"),
    *("against reference", "same segments", "CER"),
)


def compare(options: Options, report: Report) -> None:
    """Runs all peers in one fresh process, in turns."""
    show_child(report, "loadtests.bench.engine", options.to_json())


def speech(options: Options) -> list[Pcm]:
    """What the VAD hands to the recognizer."""
    settings = options.settings()
    vad = load_vad(settings).engine
    cuts = Segmentation(as_flac(options.samples()), vad, segmentation_options(settings))
    return [cut.pcm for step in cuts.steps() for cut in step]


def agreement(expected: list[str], heard: list[str]) -> tuple[Cell, Cell]:
    """Returns how many segments have the reference's tokens, and the error rate against it."""
    same = sum(one == other for one, other in zip(heard, expected, strict=True))
    return (
        f"{same}/{len(expected)}",
        f"{character_error_rate(''.join(expected), ''.join(heard)):.2%}",
    )


def measure(options: Options) -> None:
    """Runs in the child process."""
    torch.set_num_threads(1)
    segments = speech(options)
    notes: list[str] = []
    peers = _peers(options, notes)
    heard = {name: peer.hear(segments) for name, peer in peers.items()}  # warms up, too
    reference = REFERENCE if REFERENCE in peers else next(iter(peers))
    notes.insert(0, f"reference of the ratio (of CPU seconds), segments and CER: {reference}")
    audio_s = sum(map(len, segments)) / SAMPLE_RATE_HZ
    num_tokens = sum(map(len, heard["Paraserve, packed"]))
    title = (
        f"Recognizer {short(options.pack)}: {audio_s:.0f} s of speech in {len(segments)} "
        f"segments, {num_tokens / audio_s:.1f} tokens/s, one thread, median of {options.repeats}"
    )
    works = {name: partial(peer.hear, segments) for name, peer in peers.items()}
    for costs in rounds(works, options.repeats):
        rows: list[tuple[Cell, ...]] = [
            (
                name,
                cost.wall_s,
                cost.cpu_s,
                audio_s / cost.wall_s,
                audio_s / cost.cpu_s,
                costs[reference].cpu_s / cost.cpu_s,
                *agreement(heard[reference], heard[name]),
            )
            for name, cost in costs.items()
        ]
        bars = [("seconds of speech a CPU second", list(costs), [row[4] for row in rows])]
        send_tables(Table(title, _COLUMNS, rows, notes), bars=bars)


def _peers(options: Options, notes: list[str]) -> Mapping[str, Peer]:
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
    measure(Options.from_json(sys.argv[1]))
