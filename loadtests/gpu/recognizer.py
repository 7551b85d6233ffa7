"""The recognizer alone: segments in, tokens out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

import torch

from loadtests.bench.engine import agreement
from loadtests.bench.options import open_named, short
from loadtests.bench.peers import Auto, Peer, PeerMissing, auto_model
from loadtests.gpu.engines import Ours
from loadtests.gpu.options import Trial
from loadtests.harness.child import Cost, rounds
from loadtests.harness.report import Cell, Report, megabytes
from serve_app.core.errors import ConfigurationError
from serve_app.core.records import SAMPLE_RATE_HZ, Hotword, Pcm, RecognitionOptions
from serve_app.engines.paraformer.hotword_tokenizer import takes_hotwords

T = TypeVar("T")
_NUM_HOTWORDS = 10
REFERENCE = "Paraserve, float32, graphs"
_COLUMNS = (
    *("peer", "wall s", "CPU s", "RTFx", "times AutoModel"),
    *("same segments", "CER", "GPU MB"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A peer that is warm, what it heard, and the memory it took."""

    peer: Peer
    heard: list[str]
    num_bytes: int


def compare_recognizers(options: Trial, segments: list[Pcm], report: Report) -> None:
    """Runs all peers in turns on the same segments."""
    audio_s = sum(map(len, segments)) / SAMPLE_RATE_HZ
    table = report.table(
        f"Recognizer {short(options.pack)}: {audio_s:.0f} s of speech in {len(segments)} segments, "
        f"median of {options.repeats}",
        _COLUMNS,
        (
            f"segments and CER are compared with {REFERENCE}",
            "GPU MB: what PyTorch holds after loading and one run, cache and graphs included",
        ),
    )
    if not options.on_gpu:
        report.note("a trial on the CPU: there are no graphs, and the figures mean nothing")
    entries: dict[str, Entry] = {}

    def show(costs: dict[str, Cost]) -> None:
        rivals_s = [cost.wall_s for name, cost in costs.items() if "AutoModel" in name]
        expected = entries.get(REFERENCE, next(iter(entries.values()))).heard
        report.rows(
            (
                _row(name, entry, costs.get(name), audio_s, min(rivals_s, default=None), expected)
                for name, entry in entries.items()
            ),
            table,
        )

    made_by = [_ours(options, segments, report)]
    if options.peers:
        made_by.append(_auto(options, segments, report))
    for made in made_by:
        for name, entry in made:
            entries[name] = entry
            show({})
    works: dict[str, Callable[[], object]] = {
        name: partial(entry.peer.hear, segments) for name, entry in entries.items()
    }
    for costs in rounds(works, options.repeats):
        show(costs)


def _row(
    name: str,
    entry: Entry,
    cost: Cost | None,
    audio_s: float,
    rival_s: float | None,
    expected: list[str],
) -> tuple[Cell, ...]:
    ratio = f"{rival_s / cost.wall_s:.2f}" if rival_s and cost else None
    timed = (cost.wall_s, cost.cpu_s, audio_s / cost.wall_s) if cost else (None, None, None)
    return name, *timed, ratio, *agreement(expected, entry.heard), megabytes(entry.num_bytes)


def _ours(options: Trial, segments: list[Pcm], report: Report) -> Iterator[tuple[str, Entry]]:
    """Yields our variants with their names."""
    pack = open_named(options.pack)
    for dtype in ("float32", "bfloat16", "float16"):
        for graphs in (True, False):
            name = f"Paraserve, {dtype}, {'graphs' if graphs else 'no graphs'}"
            if not graphs and not options.on_gpu:
                continue  # there are no graphs without a device
            before = options.held_bytes()
            try:
                ours = Ours(pack, options, dtype, graphs)
            except ConfigurationError as error:
                report.note(f"{name} was not run: {error}")
                continue
            report.note(f"{name}: {ours.warm_up}")
            heard = ours.hear(segments)
            yield name, Entry(ours, heard, options.held_bytes() - before)
    if takes_hotwords(pack):
        name, before = "Paraserve, bfloat16, hotwords", options.held_bytes()
        hotwords = _some_hotwords(pack.tokens)
        report.note(f"{name}: the same {_NUM_HOTWORDS} words for every segment, as they come")
        ours = Ours(pack, options, "bfloat16", recognition_options=hotwords)
        heard = ours.hear(segments)
        yield name, Entry(ours, heard, options.held_bytes() - before)


def _some_hotwords(tokens: Sequence[str]) -> RecognitionOptions:
    """Words of two characters each, from the middle of the vocabulary."""
    known = [entry for entry in tokens if len(entry) == 1 and entry >= "\u4e00"]
    start = len(known) // 2
    pairs = zip(known[start::2], known[start + 1 :: 2], strict=False)
    return RecognitionOptions(
        hotwords=tuple(Hotword("".join(pair)) for pair in islice(pairs, _NUM_HOTWORDS))
    )


def _auto(options: Trial, segments: list[Pcm], report: Report) -> Iterator[tuple[str, Entry]]:
    """Yields AutoModel at the batch size that is quickest in one run, float32 and bfloat16."""
    pack, threads = open_named(options.pack), torch.get_num_threads()
    for dtype in ("float32", "bfloat16"):
        before = options.held_bytes()
        more = {"bf16": True} if dtype == "bfloat16" else {}
        try:
            model = auto_model(pack, options.device, threads, **more)
        except PeerMissing as error:
            report.note(f"AutoModel, {dtype} was not run: {error}")
            continue
        works = {
            batch_size: (
                partial(Auto(model, batch_size).hear, segments[: 2 * batch_size]),
                partial(Auto(model, batch_size).hear, segments),
            )
            for batch_size in options.batch_sizes
        }
        best = quickest(f"AutoModel, {dtype}, batches of", works, report)
        if best is not None:
            batch_size, heard = best
            entry = Entry(Auto(model, batch_size), heard, options.held_bytes() - before)
            yield f"AutoModel, {dtype}, batches of {batch_size}", entry


def quickest(
    name: str, works: Mapping[int, tuple[Callable[[], object], Callable[[], T]]], report: Report
) -> tuple[int, T] | None:
    """Returns the size that is quickest in one run, and its result; None if none runs.

    Args:
        name: of what has the size.
        works: by size, what warms up, and what is timed.
        report: gets the time of each.
    """
    found: dict[int, tuple[float, T]] = {}
    for size, (warm_up, work) in works.items():
        try:
            warm_up()
            began_s = time.perf_counter()
            result = work()
        except Exception as error:  # whatever FunASR raises belongs in the report
            report.note(f"{name} {size} failed: {error!r}")
            continue
        found[size] = (time.perf_counter() - began_s, result)
        report.note(f"{name} {size}: {found[size][0]:.2f} s once")
    best = min(found, key=lambda size: found[size][0], default=None)
    return None if best is None else (best, found[best][1])
