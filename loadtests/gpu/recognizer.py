"""The recognizer alone: segments in, tokens out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from loadtests.bench.measuring import interleaved
from loadtests.bench.options import open_named, short
from loadtests.bench.peers import Auto, PeerMissing
from loadtests.bench.tables import Bar, Table, megabytes
from loadtests.gpu.contestants import Contestant, Ours, auto_model, held_bytes
from loadtests.gpu.options import Trial
from serve_app.core.errors import ConfigurationError
from serve_app.core.records import SAMPLE_RATE_HZ, Hotword, Pcm, RecognitionOptions
from serve_app.engines.paraformer.hotword_tokenizer import takes_hotwords
from serve_app.transcript.cer import character_error_rate

_NUM_HOTWORDS = 10
REFERENCE = "Paraserve, float32, graphs"


@dataclass(frozen=True, slots=True)
class Entry:
    """A contestant that is warm, what it heard, and the memory it took."""

    contestant: Contestant
    heard: list[str]
    num_bytes: int


def compare_recognizers(options: Trial, segments: list[Pcm]) -> tuple[Table, Bar]:
    """Runs all contestants in turns on the same segments."""
    notes: list[str] = []
    if not options.on_gpu:
        notes.append("a trial on the CPU: there are no graphs, and the figures mean nothing")
    entries = _ours(options, segments, notes)
    if options.peers:
        entries |= _best_auto(options, segments, notes)
    works: dict[str, Callable[[], object]] = {
        name: partial(entry.contestant.hear, segments) for name, entry in entries.items()
    }
    costs = interleaved(works, options.repeats)
    expected = entries.get(REFERENCE, next(iter(entries.values()))).heard
    audio_s = sum(map(len, segments)) / SAMPLE_RATE_HZ
    rival_s = min((cost.wall_s for name, cost in costs.items() if "AutoModel" in name), default=0.0)
    rows = []
    for name, cost in costs.items():
        heard = entries[name].heard
        same = sum(one == other for one, other in zip(heard, expected, strict=True))
        rows.append(
            (
                name,
                cost.wall_s,
                cost.cpu_s,
                audio_s / cost.wall_s,
                f"{rival_s / cost.wall_s:.2f}" if rival_s else "-",
                f"{same}/{len(segments)}",
                f"{character_error_rate(''.join(expected), ''.join(heard)):.2%}",
                megabytes(entries[name].num_bytes),
            )
        )
    table = Table(
        f"Recognizer {short(options.pack)}: {audio_s:.0f} s of speech in {len(segments)} segments, "
        f"median of {options.repeats}",
        ("peer", "wall s", "CPU s", "RTFx", "times AutoModel", "same segments", "CER", "GPU MB"),
        tuple(rows),
        (
            f"segments and CER are compared with {REFERENCE}",
            "GPU MB: what PyTorch holds after loading and one run, cache and graphs included",
            *notes,
        ),
    )
    speeds = tuple(audio_s / cost.wall_s for cost in costs.values())
    return table, Bar("seconds of speech a second", tuple(costs), speeds)


def _ours(options: Trial, segments: list[Pcm], notes: list[str]) -> dict[str, Entry]:
    pack = open_named(options.pack)
    entries: dict[str, Entry] = {}
    for dtype in ("float32", "bfloat16", "float16"):
        for graphs in (True, False):
            name = f"Paraserve, {dtype}, {'graphs' if graphs else 'no graphs'}"
            if not graphs and not options.on_gpu:
                continue  # there are no graphs without a device
            before = held_bytes(options)
            try:
                ours = Ours(pack, options, dtype, graphs)
            except ConfigurationError as error:
                notes.append(f"{name} was not run: {error}")
                continue
            notes.append(f"{name}: {ours.warm_up}")
            heard = ours.hear(segments)
            entries[name] = Entry(ours, heard, held_bytes(options) - before)
    if takes_hotwords(pack):
        name = "Paraserve, bfloat16, hotwords"
        before = held_bytes(options)
        ours = Ours(pack, options, "bfloat16", recognition_options=_some_hotwords(pack.tokens))
        entries[name] = Entry(ours, ours.hear(segments), held_bytes(options) - before)
        notes.append(f"{name}: the same {_NUM_HOTWORDS} words for every segment, as they come")
    return entries


def _some_hotwords(tokens: Sequence[str]) -> RecognitionOptions:
    """Words of two characters each, from the middle of the vocabulary."""
    known = [entry for entry in tokens if len(entry) == 1 and entry >= "\u4e00"]
    start = len(known) // 2
    pairs = zip(known[start::2], known[start + 1 :: 2], strict=False)
    return RecognitionOptions(
        hotwords=tuple(Hotword("".join(pair)) for pair in islice(pairs, _NUM_HOTWORDS))
    )


def _best_auto(options: Trial, segments: list[Pcm], notes: list[str]) -> dict[str, Entry]:
    """AutoModel at the batch size that is quickest in one run each, float32 and bfloat16."""
    entries: dict[str, Entry] = {}
    pack = open_named(options.pack)
    for dtype in ("float32", "bfloat16"):
        before = held_bytes(options)
        best: tuple[float, int, list[str]] | None = None
        try:
            model = auto_model(pack, options, **({"bf16": True} if dtype == "bfloat16" else {}))
        except PeerMissing as error:
            notes.append(f"AutoModel, {dtype} was not run: {error}")
            continue
        for batch_size in options.batch_sizes:
            try:
                Auto(model, batch_size).hear(segments[: 2 * batch_size])  # warms up
                started_s = time.perf_counter()
                heard = Auto(model, batch_size).hear(segments)
                spent_s = time.perf_counter() - started_s
            except Exception as error:  # whatever FunASR raises belongs in the report
                notes.append(f"AutoModel, {dtype}, batches of {batch_size} failed: {error!r}")
                continue
            notes.append(f"AutoModel, {dtype}, batches of {batch_size}: {spent_s:.2f} s once")
            if best is None or spent_s < best[0]:
                best = (spent_s, batch_size, heard)
        if best is not None:
            name = f"AutoModel, {dtype}, batches of {best[1]}"
            num_bytes = held_bytes(options) - before
            entries[name] = Entry(Auto(model, best[1]), best[2], num_bytes)
    return entries
