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
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from loadtests.bench.options import open_named, short
from loadtests.gpu.engines import DTYPE, Ours, Span, find_speech, punctuator, words
from loadtests.gpu.options import Trial
from loadtests.harness.child import Child, hold, send
from loadtests.harness.report import Report, megabytes
from serve_app.core.records import Pcm
from serve_app.engines.fsmn_vad.engine import FsmnVad
from serve_app.transcript.punctuation import punctuate_all

SHARES = {"asr": 0.5, "punctuation": 0.25}
"""Of the device, by process."""
_POLL_S = 0.005
_PATIENCE_S = 600.0


def compare_sharing(options: Trial, audio_s: float, report: Report) -> None:
    """Runs each alone, then both at once, in processes of their own."""
    report.table(
        f"Two processes on one device, {short(options.pack)} and "
        f"{short(options.punctuation_pack)}, {audio_s:.0f} s of audio, {DTYPE}",
        ("process", "RTFx alone", "RTFx together", "together / alone", "GPU MB"),
        ("RTFx counts the whole recordings, pauses included; the speech in them is known",),
    )
    names = {part: f"{part}, {share} of the device" for part, share in SHARES.items()}
    alone: dict[str, tuple[float, int]] = {}
    for part in SHARES:
        alone |= _run(options, part)
        held = megabytes(alone[part][1])
        report.row(names[part], audio_s / alone[part][0], None, None, held)
    together = _run(options, *SHARES)
    report.rows(
        (
            *(
                (
                    names[part],
                    audio_s / alone_s,
                    audio_s / together[part][0],
                    alone_s / together[part][0],
                    megabytes(held),
                )
                for part, (alone_s, held) in alone.items()
            ),
            (
                *("both, until the slower one is done", None),
                *(audio_s / max(spent_s for spent_s, _ in together.values()), None, None),
            ),
        )
    )


def _run(options: Trial, *parts: str) -> dict[str, tuple[float, int]]:
    """Starts the parts at one moment; returns the time in s and the bytes of each."""
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        go = Path(scratch) / "go"
        children = {}
        for part in parts:
            children[part] = Child("loadtests.gpu.sharing", part, str(go), options.to_json())
            stack.callback(children[part].release)
        stack.callback(go.touch)
        for child in children.values():
            child.result()  # it is warm
        go.touch()
        measured: dict[str, Any] = {part: child.result() for part, child in children.items()}
    return {part: (float(spent_s), int(held)) for part, (spent_s, held) in measured.items()}


def _work(part: str, go: Path, options: Trial) -> None:
    """Runs in a child process."""
    recordings = options.recordings()
    spans = _known_speech(options, recordings)
    segments = [
        pcm[start:end] for pcm, found in zip(recordings, spans, strict=True) for start, end in found
    ]
    pack = open_named(options.pack)
    if part == "asr":
        recognizer = Ours(pack, options, DTYPE, memory_fraction=SHARES[part])
        recognizer.hear(segments)
        _measure(go, options, lambda: recognizer.hear(segments))
        return
    # The words of each recording, by a recognizer that is there for that alone.
    heard = map(words, Ours(pack, options, DTYPE, graphs=False).recognize(segments))
    texts = [[word for _ in found for word in next(heard)] for found in spans]
    if options.on_gpu:
        torch.cuda.empty_cache()  # of the recognizer that is gone
    model = punctuator(options, SHARES[part])
    punctuate_all(model, texts)
    _measure(go, options, lambda: punctuate_all(model, texts))


def _measure(go: Path, options: Trial, work: Callable[[], object]) -> None:
    send("ready")
    deadline = time.monotonic() + _PATIENCE_S
    while not go.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody gave the sign to begin")
        time.sleep(_POLL_S)
    began_s = time.perf_counter()
    for _ in range(options.repeats):
        work()
    send([(time.perf_counter() - began_s) / options.repeats, options.held_bytes()])
    hold()


def _known_speech(options: Trial, recordings: list[Pcm]) -> list[list[Span]]:
    vad = FsmnVad(open_named(options.vad_pack))
    known: dict[bytes, list[Span]] = {}
    for pcm in recordings:
        if pcm.tobytes() not in known:
            known[pcm.tobytes()] = find_speech(vad, pcm)
    return [known[pcm.tobytes()] for pcm in recordings]


if __name__ == "__main__":
    _work(sys.argv[1], Path(sys.argv[2]), Trial.from_json(sys.argv[3]))
