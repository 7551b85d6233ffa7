"""The recognizer deployment with a stopwatch: the same work, every batch written down."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter
from ray.serve import Application

from serve_app.core.ports import Recognizer
from serve_app.core.records import Chunk, ChunkFailure, Pcm, Recognition, RecognitionOptions
from serve_app.deployments.ingress import build_ingress
from serve_app.deployments.options import as_deployment
from serve_app.deployments.punctuator import build_punctuator
from serve_app.deployments.recognizer import RecognizerReplica
from serve_app.deployments.segmenter import build_segmenter
from serve_app.inference.loading import Loaded, load_recognizer
from serve_app.settings import Settings


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch of the real recognizer.

    Attributes:
        replica: tells replicas apart.
        began_s: on the machine's monotonic clock.
        ended_s: likewise.
        cpu_s: of the thread that computed it.
        frames: its cost.
        arrived_s: when each of its chunks came.
    """

    replica: int
    began_s: float
    ended_s: float
    cpu_s: float
    frames: int
    arrived_s: tuple[float, ...]

    @property
    def took_s(self) -> float:
        return self.ended_s - self.began_s


class StopwatchRecognizer:
    """An engine that writes down when its batches began and ended.

    Args:
        engine: does the work.
        path: of a file that a JSON line per batch is added to.
    """

    def __init__(self, engine: Recognizer, path: Path) -> None:
        self._engine = engine
        self._path = path
        self._replica = time.monotonic_ns()
        self.arrivals_s: dict[int, float] = {}
        """When chunks came that have not begun, by the id of their samples."""

    @property
    def max_in_flight(self) -> int:
        return self._engine.max_in_flight

    @property
    def is_reentrant(self) -> bool:
        return False  # the records are of batches one after the other

    def cost(self, num_samples: int) -> int:
        return self._engine.cost(num_samples)

    def transcribe(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Recognition | ChunkFailure]:
        began_s, cpu_s = time.monotonic(), time.thread_time()
        results = self._engine.transcribe(batch, recognition_options)
        record = BatchRecord(
            self._replica,
            began_s,
            time.monotonic(),
            time.thread_time() - cpu_s,
            sum(self.cost(len(pcm)) for pcm in batch),
            tuple(self.arrivals_s.pop(id(pcm), began_s) for pcm in batch),
        )
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record)) + "\n")
        return results


class ObservedRecognizerDeployment(RecognizerReplica):
    """Notes when chunks come, too.

    Args:
        settings: of the whole application.
        path: of the records.
    """

    def __init__(self, settings: Settings, path: str) -> None:
        # `load` is called by the constructor below and knows nothing but the settings.
        self._watch: StopwatchRecognizer | None = None
        loaded = load_recognizer(settings)
        watch = self._watch = StopwatchRecognizer(loaded.engine, Path(path))
        self.load = lambda _: _watched(loaded, watch)  # type: ignore[method-assign, assignment]  # of this one
        super().__init__(settings)

    async def transcribe(self, chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        if self._watch is not None:
            now_s = time.monotonic()
            self._watch.arrivals_s.update((id(chunk.pcm), now_s) for chunk in chunks)
        return await super().transcribe(chunks)


def _watched(loaded: Loaded[Recognizer], watch: StopwatchRecognizer) -> Loaded[Recognizer]:
    return replace(loaded, engine=watch)


def build_observed(settings: Settings, path: Path) -> Application:
    """Returns the application as `serve_app.app.build` does, with the stopwatch in it."""
    recognizer = as_deployment(
        ObservedRecognizerDeployment,
        "Recognizer",
        settings.recognizer.deployment,
        settings.log_level,
    ).bind(settings, str(path))
    segmenter = build_segmenter(settings, recognizer)
    punctuator = build_punctuator(settings) if "punctuation" in settings.stages else None
    return build_ingress(settings, segmenter, recognizer, punctuator)


def read_records(path: Path) -> tuple[BatchRecord, ...]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    adapter = TypeAdapter(BatchRecord)
    return tuple(adapter.validate_json(line) for line in lines)
