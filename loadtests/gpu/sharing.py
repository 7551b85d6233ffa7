"""Recognizer and punctuation in two processes that share one device.

As in the profile paraformer-large: the recognizer has half of the device and
punctuation a quarter. Both get the same speech at the same moment; it is done when
the slower one is.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from loadtests.bench.measuring import Child, hold, report
from loadtests.bench.options import open_named, short
from loadtests.bench.tables import Cell, Table, megabytes
from loadtests.gpu.contestants import Ours, held_bytes, words
from loadtests.gpu.options import Trial
from loadtests.gpu.pipeline import DTYPE
from loadtests.gpu.speech import Span, find_speech
from serve_app.core.records import SAMPLE_RATE_HZ, Pcm
from serve_app.engines.cuda.ct_transformer import GpuCtTransformer
from serve_app.engines.cuda.options import GpuOptions as EngineOptions
from serve_app.engines.fsmn_vad.engine import FsmnVad
from serve_app.transcript.punctuation import punctuate_all

RECOGNIZER_SHARE = 0.5
PUNCTUATOR_SHARE = 0.25
_POLL_S = 0.005
_PATIENCE_S = 600.0


def compare_sharing(options: Trial, audio_s: float) -> Table:
    """Runs each alone, then both at once, in processes of their own."""
    alone = {part: _run(options, [part])[part] for part in ("asr", "punctuation")}
    together = _run(options, ["asr", "punctuation"])
    rows: list[tuple[Cell, ...]] = []
    for part, share in (("asr", RECOGNIZER_SHARE), ("punctuation", PUNCTUATOR_SHARE)):
        alone_s, num_bytes = alone[part]
        together_s, _ = together[part]
        rows.append(
            (
                f"{part}, {share} of the device",
                audio_s / alone_s,
                audio_s / together_s,
                alone_s / together_s,
                megabytes(num_bytes),
            )
        )
    slower_s = max(spent_s for spent_s, _ in together.values())
    rows.append(("both, until the slower one is done", "-", audio_s / slower_s, "-", "-"))
    return Table(
        f"Two processes on one device, {short(options.pack)} and "
        f"{short(options.punctuation_pack)}, {audio_s:.0f} s of audio, {DTYPE}",
        ("process", "RTFx alone", "RTFx together", "together / alone", "GPU MB"),
        tuple(rows),
        ("RTFx counts the whole recordings, pauses included; the speech in them is known",),
    )


def _run(options: Trial, parts: list[str]) -> dict[str, tuple[float, int]]:
    """Starts the parts at one moment; returns the time and memory of each."""
    with tempfile.TemporaryDirectory() as scratch:
        go = Path(scratch) / "go"
        children = {
            part: Child("loadtests.gpu.sharing", [part, str(go), options.to_json()])
            for part in parts
        }
        try:
            for child in children.values():
                child.result()  # it is warm
            go.touch()
            measured: dict[str, Any] = {part: child.result() for part, child in children.items()}
        finally:
            go.touch()
            for child in children.values():
                child.release()
    return {part: (float(spent_s), int(held)) for part, (spent_s, held) in measured.items()}


def _work(part: str, go: Path, options: Trial) -> None:
    """Runs in a child process."""
    recordings = options.recordings()
    spans = _known_speech(options, recordings)
    segments = [
        pcm[start:end] for pcm, found in zip(recordings, spans, strict=True) for start, end in found
    ]
    if part == "asr":
        pack = open_named(options.pack)
        recognizer = Ours(pack, options, DTYPE, memory_fraction=RECOGNIZER_SHARE)
        recognizer.hear(segments)
        _measure(go, options, lambda: recognizer.hear(segments))
        return
    texts = _words(options, segments, [len(found) for found in spans])
    if options.on_gpu:
        torch.cuda.empty_cache()  # of the recognizer that is gone
    punctuator = GpuCtTransformer(
        open_named(options.punctuation_pack),
        EngineOptions(
            device=options.device,
            dtype=DTYPE,
            max_batch_rows=options.max_batch_words,
            memory_fraction=PUNCTUATOR_SHARE,
        ),
    )
    punctuate_all(punctuator, texts)
    _measure(go, options, lambda: punctuate_all(punctuator, texts))


def _words(options: Trial, segments: list[Pcm], counts: list[int]) -> list[list[str]]:
    """The words of each recording, by a recognizer that is there for that alone."""
    recognizer = Ours(open_named(options.pack), options, DTYPE, graphs=False)
    heard = iter([words(result) for result in recognizer.recognize(segments)])
    return [[word for _ in range(count) for word in next(heard)] for count in counts]


def _measure(go: Path, options: Trial, work: Callable[[], object]) -> None:
    report("ready")
    deadline = time.monotonic() + _PATIENCE_S
    while not go.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody gave the sign to begin")
        time.sleep(_POLL_S)
    started_s = time.perf_counter()
    for _ in range(options.repeats):
        work()
    spent_s = (time.perf_counter() - started_s) / options.repeats
    report([spent_s, held_bytes(options)])
    hold()


def _known_speech(options: Trial, recordings: list[Pcm]) -> list[list[Span]]:
    vad = FsmnVad(open_named(options.vad_pack))
    known: dict[bytes, list[Span]] = {}
    spans = []
    for pcm in recordings:
        key = pcm.tobytes()
        if key not in known:
            known[key] = find_speech(vad, pcm)
        spans.append(known[key])
    return spans


def audio_seconds(recordings: list[Pcm]) -> float:
    return sum(map(len, recordings)) / SAMPLE_RATE_HZ


if __name__ == "__main__":
    _work(sys.argv[1], Path(sys.argv[2]), Trial.from_json(sys.argv[3]))
