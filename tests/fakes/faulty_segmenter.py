"""A segmenter deployment whose thread gets stuck on the first file with a mark in its bytes."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import numpy as np
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from serve_app.core.records import Chunk, RecordingEnd, SegmentationJob, Utterance
from serve_app.deployments.options import as_deployment
from serve_app.deployments.segmenter import SegmenterReplica
from serve_app.settings import Settings

STICKY_BYTES = b"this file gets its segmenter stuck"


class FaultySegmenterDeployment(SegmenterReplica):
    def __init__(self, settings: Settings, recognizer: DeploymentHandle[Any]) -> None:
        super().__init__(settings, recognizer)
        self._trace = settings.pack_dir.parent / "segmenter.trace"

    async def recognize(
        self, job: SegmentationJob
    ) -> AsyncGenerator[Utterance | RecordingEnd | None]:
        if STICKY_BYTES in np.asarray(job.audio).tobytes() and not self._trace.exists():
            self._trace.write_text("stuck")

            def hang() -> list[Chunk] | None:
                time.sleep(600)
                return None

            await self._thread.run(hang, job.context)
        async with aclosing(super().recognize(job)) as events:
            async for event in events:
                yield event


def build_faulty_segmenter(settings: Settings, recognizer: Application) -> Application:
    """As `build_segmenter`, with a health check that is quick to act."""
    deployment = as_deployment(
        FaultySegmenterDeployment,
        "Segmenter",
        settings.segmenter.deployment,
        settings.log_level,
    ).options(health_check_period_s=1.0)
    return deployment.bind(settings, recognizer)
