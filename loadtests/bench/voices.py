"""The speaker model alone: segments in, an embedding per window out, against FunASR's CAMPPlus."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch

from loadtests.bench.engine import speech
from loadtests.bench.options import Options, open_named, short
from loadtests.bench.peers import PeerMissing, as_float
from loadtests.harness.child import rounds, send_tables, show_child
from loadtests.harness.report import Cell, Report, Table
from serve_app.core.errors import ConfigurationError
from serve_app.core.records import SAMPLE_RATE_HZ, Pcm
from serve_app.core.speakers import Embeddings
from serve_app.engines.campplus import CampplusEngine
from serve_app.packs import PackContents

# FunASR 1.4.16 gives its speaker model one window at a time.
REFERENCE = "FunASR, one window a call"
_BATCH_WINDOWS = 16
_COLUMNS = (
    *("peer", "wall s", "CPU s", "speech s a CPU s"),
    *("against reference", "smallest cosine", "median cosine"),
)

_Embed: TypeAlias = Callable[[], Embeddings]


def compare(options: Options, report: Report) -> None:
    """Runs all peers in one fresh process, in turns."""
    show_child(report, "loadtests.bench.voices", options.to_json())


def measure(options: Options) -> None:
    """Runs in the child process."""
    torch.set_num_threads(1)
    segments = speech(options)
    notes: list[str] = []
    peers = _peers(open_named(options.speaker_pack), segments, notes)
    found = {name: peer() for name, peer in peers.items()}  # warms up, too
    reference = REFERENCE if REFERENCE in peers else next(iter(peers))
    notes.insert(0, f"reference of the ratio (of CPU seconds) and the cosines: {reference}")
    audio_s = sum(map(len, segments)) / SAMPLE_RATE_HZ
    title = (
        f"Speaker model {short(options.speaker_pack)}: {audio_s:.0f} s of speech in "
        f"{len(found[reference])} windows, features included, one thread, median of "
        f"{options.repeats}"
    )
    for costs in rounds(peers, options.repeats):
        rows: list[tuple[Cell, ...]] = [
            (
                name,
                cost.wall_s,
                cost.cpu_s,
                audio_s / cost.cpu_s,
                costs[reference].cpu_s / cost.cpu_s,
                *_cosines(found[reference], found[name]),
            )
            for name, cost in costs.items()
        ]
        bars = [("seconds of speech a CPU second", list(costs), [row[3] for row in rows])]
        send_tables(Table(title, _COLUMNS, rows, notes), bars=bars)


def _cosines(expected: Embeddings, found: Embeddings) -> tuple[Cell, Cell]:
    cosines = (expected * found).sum(axis=1)
    return f"{cosines.min():.6f}", f"{np.median(cosines):.6f}"


def _peers(pack: PackContents, segments: list[Pcm], notes: list[str]) -> dict[str, _Embed]:
    peers = {"Paraserve": partial(_embed, CampplusEngine(pack), segments)}
    try:
        rounded = CampplusEngine(pack, dtype="bfloat16")
        peers["Paraserve, bfloat16"] = partial(_embed, rounded, segments)
    except ConfigurationError as error:
        notes.append(f"bfloat16 was not run: {error}")
    try:
        model = _funasr_model(pack)
    except PeerMissing as error:
        notes.append(f"FunASR was not run: {error}")
        return peers
    peers[REFERENCE] = partial(_funasr_embed, model, segments, 1)
    peers[f"FunASR, batches of {_BATCH_WINDOWS}"] = partial(
        _funasr_embed, model, segments, _BATCH_WINDOWS
    )
    return peers


def _embed(engine: CampplusEngine, segments: list[Pcm]) -> Embeddings:
    return np.concatenate(engine.embed(segments))


def _funasr_model(pack: PackContents) -> Any:
    """Returns FunASR's network with the weights of the pack.

    Raises:
        PeerMissing: FunASR is not installed.
    """
    try:
        from funasr.models.campplus.model import CAMPPlus
    except ImportError as error:
        raise PeerMissing(f"FunASR is not installed: {error}") from error
    model = CAMPPlus(**pack.config["model_conf"]).eval()
    model.load_state_dict(torch.load(pack.weights, weights_only=True), strict=True)
    return model


@torch.inference_mode()
def _funasr_embed(model: Any, segments: list[Pcm], batch_windows: int) -> Embeddings:
    from funasr.models.campplus.utils import extract_feature, sv_chunk

    found: list[Embeddings] = []
    for pcm in segments:
        windows = sv_chunk([[0.0, len(pcm) / SAMPLE_RATE_HZ, as_float(pcm)]])
        samples = [torch.from_numpy(window) for _, _, window in windows]
        for start in range(0, len(samples), batch_windows):
            features = extract_feature(samples[start : start + batch_windows])[0]
            found.append(torch.nn.functional.normalize(model(features)).numpy())
    return np.concatenate(found)


if __name__ == "__main__":
    measure(Options.from_json(sys.argv[1]))
