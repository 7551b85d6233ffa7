"""A recognizer deployment that dies of, or hangs on, chunks with a mark in them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from ray.serve import Application

from serve_app.core.ports import Recognizer
from serve_app.core.records import ChunkFailure, Pcm, Recognition, RecognitionOptions
from serve_app.deployments.options import as_deployment
from serve_app.deployments.recognizer import RecognizerReplica
from serve_app.inference.loading import Loaded, load_recognizer
from serve_app.settings import Settings

DEADLY = 12345
STICKY = 23456
_MARK_SAMPLES = 800


def marked(samples: Pcm, level: int, at_s: float, length_s: float = 0.2) -> Pcm:
    """Returns the recording with a mark at a place."""
    start = int(at_s * 16_000)
    copy = samples.copy()
    copy[start : start + int(length_s * 16_000)] = level
    return copy


class FaultyEngine:
    """Ends its process when it gets a deadly mark; sleeps at the first sticky one."""

    def __init__(self, engine: Recognizer, trace: Path) -> None:
        self._engine = engine
        self._trace = trace

    @property
    def max_in_flight(self) -> int:
        return self._engine.max_in_flight

    @property
    def is_reentrant(self) -> bool:
        return False  # what dies or hangs is to be the batch that the test is about

    def cost(self, num_samples: int) -> int:
        return self._engine.cost(num_samples)

    def transcribe(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Recognition | ChunkFailure]:
        if _has(batch, DEADLY):
            self._note(f"died with {len(batch)}")
            os._exit(1)
        if _has(batch, STICKY) and not self._trace.exists():
            self._note(f"stuck with {len(batch)}")
            time.sleep(600)
        return self._engine.transcribe(batch, recognition_options)

    def _note(self, line: str) -> None:
        with self._trace.open("a") as file:
            file.write(line + "\n")


def _has(batch: Sequence[Pcm], level: int) -> bool:
    return any(np.count_nonzero(pcm == level) > _MARK_SAMPLES for pcm in batch)


class FaultyRecognizerDeployment(RecognizerReplica):
    @staticmethod
    def load(settings: Settings) -> Loaded[Recognizer]:
        loaded = load_recognizer(settings)
        trace = settings.pack_dir.parent / f"{settings.app_name}.trace"
        return replace(loaded, engine=FaultyEngine(loaded.engine, trace))


def build_faulty_recognizer(settings: Settings) -> Application:
    """As `build_recognizer`, with a health check that is quick to act."""
    deployment = as_deployment(
        FaultyRecognizerDeployment,
        "Recognizer",
        settings.recognizer.deployment,
        settings.log_level,
    ).options(health_check_period_s=1.0)
    return deployment.bind(settings)
