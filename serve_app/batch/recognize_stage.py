"""The recognizers of a batch job, which turn chunks of any recordings into words.

Each actor runs several blocks at once and batches their chunks with the `MicroBatcher` of the
service.

Ray restarts a lost actor and repeats its blocks without limit, so a chunk that kills its
actor would do so forever. Hence a restarted actor first runs its blocks one at a time, and a
block that was running at two deaths chunk by chunk (`PoisonGuard`). It reports each of them to
the `ProgressActor` first, which survives the recognizers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pyarrow as pa
import ray

from serve_app.batch.arrow_tables import read_audio, words_table
from serve_app.batch.progress import Computed
from serve_app.core.ports import Recognizer
from serve_app.core.records import (
    SAMPLE_RATE_HZ,
    Chunk,
    ChunkFailure,
    Pcm,
    Recognition,
    RecognitionOptions,
)
from serve_app.core.speakers import SpeakerWindows
from serve_app.inference.batched import BatchedRecognizer, recognizer_limits
from serve_app.inference.loading import load_recognizer, load_speaker_embedder
from serve_app.inference.voices import LocalVoices
from serve_app.scheduling.micro_batcher import EngineStuck
from serve_app.settings import Settings
from serve_app.transcript.fanout import poison_failure

ResultT = TypeVar("ResultT")

_LOG = logging.getLogger(__name__)

_STUCK_EXIT_CODE = 70


class LoopThread:
    """An event loop on its own thread, which several threads may use."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Returns the result of a coroutine; blocks the calling thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class TimedRecognizer:
    """A recognizer that measures the share of each item in the time of its batch.

    Args:
        engine: the recognizer.
        on_batch: called with the seconds and encoder frames of each batch.
    """

    def __init__(self, engine: Recognizer, on_batch: Callable[[float, int], object]) -> None:
        self._engine = engine
        self._on_batch = on_batch
        self._took_s: dict[int, float] = {}

    @property
    def max_in_flight(self) -> int:
        return self._engine.max_in_flight

    @property
    def is_reentrant(self) -> bool:
        return self._engine.is_reentrant

    def cost(self, num_samples: int) -> int:
        return self._engine.cost(num_samples)

    def transcribe(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Recognition | ChunkFailure]:
        began_s = time.monotonic()
        results = self._engine.transcribe(batch, recognition_options)
        took_s = time.monotonic() - began_s
        num_samples = max(1, sum(len(pcm) for pcm in batch))
        num_frames = sum(self._engine.cost(len(pcm)) for pcm in batch)
        self._on_batch(num_samples / SAMPLE_RATE_HZ, num_frames)
        for pcm in batch:
            self._took_s[id(pcm)] = took_s * len(pcm) / num_samples
        return results

    def take_time(self, pcm: Pcm) -> float:
        """Returns and removes the time of an item in s; needs the same array object."""
        return self._took_s.pop(id(pcm), 0.0)


class ProgressActor:
    """An actor on the driver's node with the state that must outlive the recognizers."""

    def __init__(self) -> None:
        self._begun: dict[str, int] = {}
        self._computed = Computed(0.0, 0)

    def add(self, audio_s: float, num_frames: int) -> None:
        """Counts audio that a model has processed, whatever becomes of it."""
        self._computed += Computed(audio_s, num_frames)

    def computed(self) -> Computed:
        """Returns what the models have processed so far, repeated work included."""
        return self._computed

    def begin(self, key: str) -> int:
        """Returns how often the work was begun before without being ended."""
        num_before = self._begun.get(key, 0)
        self._begun[key] = num_before + 1
        return num_before

    def end(self, key: str) -> None:
        self._begun.pop(key, None)


class PoisonGuard:
    """Runs the first blocks of a restarted actor one at a time, to isolate deadly chunks.

    Args:
        num_blocks: number of these blocks; 0 for a new actor.
        begin: `ProgressActor.begin`.
        end: `ProgressActor.end`.
        max_deaths: a chunk fails after this many deaths while it ran alone.
    """

    def __init__(
        self,
        num_blocks: int,
        begin: Callable[[str], int],
        end: Callable[[str], None],
        max_deaths: int,
    ) -> None:
        self._lock = threading.Lock()
        self._num_left = num_blocks
        self._begin = begin
        self._end = end
        self._max_deaths = max_deaths

    def run(
        self,
        chunks: Sequence[Chunk],
        transcribe: Callable[[list[Chunk]], list[Recognition | ChunkFailure]],
    ) -> list[Recognition | ChunkFailure]:
        """Returns a result per chunk, in order."""
        if self._num_left > 0 and chunks:
            with self._lock:
                if self._num_left > 0:
                    results = self._run_block(list(chunks), transcribe)
                    self._num_left -= 1
                    return results
        return transcribe(list(chunks))

    def _run_block(
        self,
        chunks: list[Chunk],
        transcribe: Callable[[list[Chunk]], list[Recognition | ChunkFailure]],
    ) -> list[Recognition | ChunkFailure]:
        block = f"block {_chunk_name(chunks[0])}"
        results: list[Recognition | ChunkFailure] = []
        if self._begin(block) == 0:
            results = transcribe(chunks)
        else:
            for chunk in chunks:
                results += self._run_chunk(chunk, transcribe)
        self._end(block)
        return results

    def _run_chunk(
        self,
        chunk: Chunk,
        transcribe: Callable[[list[Chunk]], list[Recognition | ChunkFailure]],
    ) -> list[Recognition | ChunkFailure]:
        num_deaths = self._begin(_chunk_name(chunk))
        if (failure := poison_failure(num_deaths, self._max_deaths)) is not None:
            return [failure]
        results = transcribe([chunk])
        self._end(_chunk_name(chunk))
        return results


def _chunk_name(chunk: Chunk) -> str:
    return f"{chunk.context.request_id}:{chunk.index}"


class RecognizeChunks:
    """The recognizer for Ray Data, which calls it with a thread per block.

    Args:
        settings: of the job; the actor reserves what `recognizer.deployment` says.
        progress_actor: handle of a `ProgressActor`.
    """

    def __init__(self, settings: Settings, progress_actor: Any) -> None:
        self._engine = TimedRecognizer(self.load(settings), progress_actor.add.remote)
        self._voices: LocalVoices | None = None
        if "speakers" in settings.stages:
            self._voices = LocalVoices(load_speaker_embedder(settings).engine)
        # No caller waits, so batches may be long.
        limits = replace(recognizer_limits(settings), max_s=None)
        self._loop = LoopThread("recognizer-loop")
        self._recognizer = BatchedRecognizer(self._engine, limits, _LOG)
        self._stuck_after_s = settings.recognizer.stuck_after_s
        # An actor that begins a second time was lost in between.
        name = f"actor {ray.get_runtime_context().get_actor_id()}"
        restarted = ray.get(progress_actor.begin.remote(name)) > 0
        self._poison_guard = PoisonGuard(
            settings.batch.recognizers.blocks_in_flight + 1 if restarted else 0,
            lambda key: int(ray.get(progress_actor.begin.remote(key))),
            lambda key: ray.get(progress_actor.end.remote(key)),
            settings.recognizer.max_deaths,
        )

    @staticmethod
    def load(settings: Settings) -> Recognizer:
        """Returns the engine; subclasses may override it."""
        return load_recognizer(settings).engine

    def __call__(self, audio: pa.Table) -> pa.Table:
        chunks, ends = read_audio(audio)
        results = self._poison_guard.run([chunk for _, chunk in chunks], self._transcribe)
        began_s = time.monotonic()
        voices = self._embed([chunk for _, chunk in chunks])
        embed_s = time.monotonic() - began_s
        num_samples = max(1, sum(chunk.num_samples for _, chunk in chunks))
        recognized = [
            (
                number,
                chunk,
                result,
                self._engine.take_time(chunk.pcm) + embed_s * chunk.num_samples / num_samples,
            )
            for (number, chunk), result in zip(chunks, results, strict=True)
        ]
        return words_table(recognized, ends, voices)

    def _embed(self, chunks: list[Chunk]) -> list[SpeakerWindows | None]:
        """Returns the windows of each chunk, None where that failed; nothing without labels."""
        if self._voices is None or not chunks:
            return []
        try:
            return self._loop.run(self._voices.embed(chunks))
        except Exception:
            # It would fail again; the transcripts are complete without labels, and say so.
            _LOG.exception("voices were not embedded")
            return [None] * len(chunks)

    def _transcribe(self, chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        return self._loop.run(self._transcribe_or_exit(chunks)) if chunks else []

    async def _transcribe_or_exit(self, chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        """Returns a result per chunk; a stuck engine ends this process."""
        call = asyncio.ensure_future(self._recognizer.transcribe(chunks))
        while True:
            done, _ = await asyncio.wait([call], timeout=self._stuck_after_s / 4)
            if done:
                return await call
            try:
                self._recognizer.check(self._stuck_after_s)
            except EngineStuck:
                call.cancel()
                _LOG.exception("the recognizer is stuck")
                # After an abrupt exit Ray restarts the actor and repeats its work; after an
                # orderly one it would not.
                os._exit(_STUCK_EXIT_CODE)
