"""Speech found in recordings, here or in processes beside the recognizer."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import torch

from loadtests.bench.options import open_named
from serve_app.core.records import SAMPLES_PER_MS, Pcm
from serve_app.engines.fsmn_vad.engine import FsmnVad
from serve_app.transcript.chunking import SegmentChunker

MAX_SEGMENT_S = 30.0
_WINDOW_SAMPLES = 20 * 16_000

Span: TypeAlias = tuple[int, int]
"""First sample of an utterance and the one after its last."""


@dataclass(slots=True)
class _Worker:
    vad: FsmnVad | None = None


_WORKER = _Worker()


def find_speech(vad: FsmnVad, pcm: Pcm) -> list[Span]:
    """Cuts a recording as the service does."""
    chunker = SegmentChunker(MAX_SEGMENT_S)
    stream = vad.open()
    cuts = []
    for start in range(0, len(pcm), _WINDOW_SAMPLES):
        window = pcm[start : start + _WINDOW_SAMPLES]
        chunker.append(window)
        closed = stream.push(window)
        cuts += chunker.cut(closed, stream.open_since_ms, stream.keep_from_ms)
    cuts += chunker.cut(stream.finish(), None, len(pcm) // SAMPLES_PER_MS)
    return [
        (cut.start_ms * SAMPLES_PER_MS, cut.start_ms * SAMPLES_PER_MS + len(cut.pcm))
        for cut in cuts
    ]


class SpeechFinders:
    """Processes that search recordings for speech; use in a `with` block.

    Args:
        vad_pack: a name or `dir:/PATH`.
        num_processes: one compute thread each.
    """

    def __init__(self, vad_pack: str, num_processes: int) -> None:
        self._pool = ProcessPoolExecutor(
            num_processes,
            # A forked child could not use what the parent holds of a CUDA device.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_load,
            initargs=(vad_pack,),
        )

    def __enter__(self) -> SpeechFinders:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def search(self, recordings: list[Pcm]) -> Iterator[list[Span]]:
        """Yields the speech of each recording, in order, as it is found."""
        return self._pool.map(_find, recordings)


def _load(vad_pack: str) -> None:
    torch.set_num_threads(1)
    _WORKER.vad = FsmnVad(open_named(vad_pack))


def _find(pcm: Pcm) -> list[Span]:
    if _WORKER.vad is None:
        raise RuntimeError("the process has no VAD")
    return find_speech(_WORKER.vad, pcm)
