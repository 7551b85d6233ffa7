"""Our engines on one device, as the service drives them, and speech for them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self, TypeAlias

import torch

from loadtests.bench.options import open_named
from loadtests.bench.peers import packed
from loadtests.gpu.options import Trial
from serve_app.core.records import (
    NO_OPTIONS,
    SAMPLES_PER_MS,
    ChunkFailure,
    Pcm,
    Recognition,
    RecognitionOptions,
)
from serve_app.engines.cuda.ct_transformer import GpuCtTransformer
from serve_app.engines.cuda.options import GpuOptions as EngineOptions
from serve_app.engines.cuda.paraformer import GpuParaformer
from serve_app.engines.fsmn_vad.engine import FsmnVad
from serve_app.packs import PackContents
from serve_app.transcript.chunking import SegmentChunker

DTYPE = "bfloat16"
"""Of the pipeline."""
MAX_SEGMENT_S = 30.0
_WINDOW_SAMPLES = 20 * 16_000

Heard: TypeAlias = Recognition | ChunkFailure
Span: TypeAlias = tuple[int, int]
"""First sample of an utterance and the one after its last."""


class Ours:
    """Our recognizer as the service drives it: full batches, two under way at a time.

    Args:
        pack: the recognizer's.
        options: device and budget.
        dtype: of the matrix products.
        graphs: use CUDA graphs.
        memory_fraction: of the device.
        recognition_options: of every segment.
    """

    def __init__(
        self,
        pack: PackContents,
        options: Trial,
        dtype: str,
        graphs: bool = True,
        memory_fraction: float | None = None,
        recognition_options: RecognitionOptions = NO_OPTIONS,
    ) -> None:
        self._budget = options.max_batch_frames
        self._recognition_options = recognition_options
        self._engine = GpuParaformer(
            pack,
            EngineOptions(
                device=options.device,
                dtype=dtype,
                max_batch_rows=options.max_batch_frames,
                max_graphs=EngineOptions().max_graphs if graphs else 0,
                memory_fraction=memory_fraction,
            ),
        )
        self._threads = ThreadPoolExecutor(self._engine.max_in_flight)

    @property
    def warm_up(self) -> str:
        return str(self._engine.warm_up)

    def hear(self, segments: list[Pcm]) -> list[str]:
        """Returns the text of each segment without spaces; "!" for a failure, which none has."""
        return [
            "".join(words(heard)) if isinstance(heard, Recognition) else "!"
            for heard in self.recognize(segments)
        ]

    def recognize(self, segments: Iterable[Pcm]) -> Iterator[Heard]:
        """Yields a result a segment, in order."""
        batches = packed(segments, self._engine.cost, self._budget)
        for results in self._threads.map(self._transcribe, batches):
            yield from results

    def _transcribe(self, batch: list[Pcm]) -> list[Heard]:
        return self._engine.transcribe(batch, [self._recognition_options] * len(batch))


def words(heard: Heard) -> list[str]:
    return [token.text for token in heard.tokens] if isinstance(heard, Recognition) else []


def punctuator(options: Trial, memory_fraction: float | None = None) -> GpuCtTransformer:
    """Returns our punctuation model on the device."""
    return GpuCtTransformer(
        open_named(options.punctuation_pack),
        EngineOptions(
            device=options.device,
            dtype=DTYPE,
            max_batch_rows=options.max_batch_words,
            memory_fraction=memory_fraction,
        ),
    )


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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def search(self, recordings: list[Pcm]) -> Iterator[list[Span]]:
        """Yields the speech of each recording, in order, as it is found."""
        return self._pool.map(_find, recordings)


@dataclass(slots=True)
class _Worker:
    vad: FsmnVad | None = None


_WORKER = _Worker()


def _load(vad_pack: str) -> None:
    torch.set_num_threads(1)
    _WORKER.vad = FsmnVad(open_named(vad_pack))


def _find(pcm: Pcm) -> list[Span]:
    if _WORKER.vad is None:
        raise RuntimeError("the process has no VAD")
    return find_speech(_WORKER.vad, pcm)
