"""The service's stages in this process, without Ray or HTTP, with a stopwatch.

Queues, batches, fan-out and models are the real ones on the real clock; what Ray adds
is not there. It needs no cluster, so it tells model errors from those of Ray's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil

from loadtests.simulation.calibration import Spent
from loadtests.simulation.keeping import RealRun
from loadtests.simulation.machine import MachineWatch
from loadtests.simulation.recordings import Clip
from loadtests.simulation.sending import Answer
from loadtests.simulation.stopwatch import StopwatchRecognizer, read_records
from serve_app.core.chunks import Chunk, ChunkFailure, Recognition
from serve_app.core.origin import Origin
from serve_app.core.stages import STAGES
from serve_app.pipeline.local import LocalTranscriber
from serve_app.planning.trace import Trace
from serve_app.settings import Settings


class LocalService:
    """Stages that note what they spend; use with `async with`.

    Args:
        settings: of the stages.
        path: of the recogniser's records.
    """

    def __init__(self, settings: Settings, path: Path) -> None:
        self._path = path
        self._transcriber = LocalTranscriber(settings)
        recognizer = self._transcriber._recognizer
        self._watch = StopwatchRecognizer(recognizer._engine, path)
        recognizer._engine = self._watch
        transcribe = recognizer.transcribe

        async def noted(chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
            now_s = time.monotonic()
            self._watch.arrivals_s.update((id(chunk.pcm), now_s) for chunk in chunks)
            return await transcribe(chunks)

        recognizer.transcribe = noted  # type: ignore[method-assign]  # of this one
        self._punctuated_s = 0.0
        punctuator = self._transcriber._punctuator
        if punctuator is not None:
            label = punctuator.label

            def timed(batch: Sequence[Sequence[str]]) -> list[list[str]]:
                began_s = time.thread_time()
                labels = label(batch)
                self._punctuated_s += time.thread_time() - began_s
                return labels

            punctuator.label = timed  # type: ignore[method-assign]  # of this one
        self._decoded_s = 0.0
        run = self._transcriber._decoding.run

        async def timed_run(
            step: Callable[[], list[Chunk] | None], origin: Origin
        ) -> list[Chunk] | None:
            def timed_step() -> list[Chunk] | None:
                began_s = time.thread_time()
                try:
                    return step()
                finally:
                    self._decoded_s += time.thread_time() - began_s

            return await run(timed_step, origin)

        self._transcriber._decoding.run = timed_run  # type: ignore[method-assign]  # of this one
        self._num_requests = 0

    @property
    def decoded_s(self) -> float:
        """CPU time of decoding and cutting so far."""
        return self._decoded_s

    async def __aenter__(self) -> LocalService:
        await self._transcriber.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._transcriber.__aexit__(None, None, None)

    async def send(self, clip: Clip) -> Answer:
        self._num_requests += 1
        sent_s = time.monotonic()
        audio = np.frombuffer(clip.content, np.uint8)
        events = self._transcriber.transcribe(audio, frozenset(STAGES), str(self._num_requests))
        async for _ in events:
            pass
        return Answer(clip.audio_s, sent_s, time.monotonic() - sent_s, 200)

    async def send_closed(
        self, lengths_s: Sequence[float], clips: Mapping[float, Clip], num_clients: int
    ) -> Spent:
        """Sends recordings one after another from a number of clients."""
        self._path.unlink(missing_ok=True)
        waiting = iter(lengths_s)
        before_s, punctuated_s = time.process_time(), self._punctuated_s

        async def work() -> None:
            for audio_s in waiting:
                await self.send(clips[audio_s])

        async with asyncio.TaskGroup() as group:
            for _ in range(num_clients):
                group.create_task(work())
        return self._spent(lengths_s, before_s, punctuated_s)

    async def send_trace(
        self,
        trace: Trace,
        clips: Mapping[float, Clip],
        calibration: Spent,
        decoding_s: float,
    ) -> RealRun:
        """Sends each request at its time."""
        self._path.unlink(missing_ok=True)
        before_s, punctuated_s = time.process_time(), self._punctuated_s
        with MachineWatch({"Process": [psutil.Process()]}) as watch:
            start_s = time.monotonic()
            tasks = []
            async with asyncio.TaskGroup() as group:
                for arrival_s, audio_s in zip(
                    trace.arrival_s.tolist(), trace.audio_s.tolist(), strict=True
                ):
                    await asyncio.sleep(max(0.0, start_s + arrival_s - time.monotonic()))
                    tasks.append(group.create_task(self.send(clips[audio_s])))
        spent = self._spent(trace.audio_s.tolist(), before_s, punctuated_s)
        return RealRun(
            trace,
            start_s,
            tuple(task.result() for task in tasks),
            tuple(spent.records),
            tuple(watch.cores_left(start_s)),
            spent,
            calibration,
            decoding_s,
        )

    def _spent(self, lengths_s: Sequence[float], before_s: float, punctuated_s: float) -> Spent:
        records = read_records(self._path)
        model_s = sum(record.cpu_s for record in records)
        marks_s = self._punctuated_s - punctuated_s
        rest_s = time.process_time() - before_s - model_s - marks_s
        used_s = {
            "Recognizer": model_s, "Punctuator": marks_s, "Segmenter": rest_s, "Ingress": 0.0
        }  # fmt: skip
        return Spent(used_s, tuple(lengths_s), tuple(records))
