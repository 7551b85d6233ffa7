"""The simulated segmenter against the `fan_out` that it models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.core.records import SAMPLE_RATE_HZ, Chunk, ChunkFailure, RequestContext
from serve_app.planning.costs import CallCost, LineCost
from serve_app.planning.cpu import Clock, OwnCores
from serve_app.planning.replicas import Call, ReplicaGroup, Request
from serve_app.planning.segmenting import Segmenting
from serve_app.planning.service_config import ReplicaGroupShape
from serve_app.planning.speech import DecodedBlock, MeasuredSpeech, group_of
from serve_app.scheduling.batch_budget import BatchLimits
from serve_app.transcript.fanout import fan_out
from tests.planning.simulated_loop import run_simulated

DECODE = LineCost(0.0021, 0.0173)
RECOGNIZE = LineCost(0.0137, 0.00117)
FRAME_S = 0.01

Blocks = Sequence[Sequence[float]]
"""For each decoded block, the lengths in s of the groups that it completed."""


def blocks_of(lengths_s: Blocks) -> tuple[DecodedBlock, ...]:
    return tuple(
        DecodedBlock(10.0, tuple(group_of([length_s], FRAME_S) for length_s in groups))
        for groups in lengths_s
    )


def sent_by_the_model(blocks: Sequence[DecodedBlock], max_in_flight: int) -> list[float]:
    """Returns when each group of a recording is sent; each has a recognizer of its own."""
    clock = Clock()
    cores = OwnCores(clock)
    recognizer = ReplicaGroup(
        clock,
        cores,
        ReplicaGroupShape(1, 10**9, BatchLimits(10**9, 1), concurrency=10**9),
        (RECOGNIZE, CallCost(0.0, 0.0)),
    )
    sent_s: list[float] = []

    def submit(call: Call) -> None:
        sent_s.append(clock.now)
        work_s = RECOGNIZE.of(call.group.total_frames)
        cores.run(work_s, recognizer.on_answer, call)

    recognizer.submit = submit  # type: ignore[method-assign]  # recognizers without a queue
    duration_s = 10.0 * len(blocks)
    segmenting = Segmenting(
        clock,
        cores,
        DECODE,
        MeasuredSpeech({duration_s: blocks}),
        recognizer,
        num_segmenters=1,
        max_recordings=1,
        max_in_flight=max_in_flight,
        seed=0,
    )
    segmenting.submit(Request(0, 0.0, duration_s, "key", 1.0, float("inf")))
    clock.run()
    return sent_s


def sent_by_fan_out(blocks: Sequence[DecodedBlock], max_in_flight: int) -> list[float]:
    """Returns the same of the service's own fan-out."""

    async def run() -> list[float]:
        loop = asyncio.get_running_loop()
        sent_s: list[float] = []

        async def groups() -> AsyncGenerator[list[Chunk]]:
            for block in blocks:
                await asyncio.sleep(DECODE.of(block.audio_s))
                for group in block.groups:
                    num_samples = round(group.total_frames * FRAME_S * SAMPLE_RATE_HZ)
                    yield [Chunk(RequestContext("r"), 0, 0, np.zeros(num_samples, np.int16))]

        async def recognize(group: list[Chunk]) -> list[ChunkFailure]:
            sent_s.append(loop.time())
            num_frames = round(group[0].duration_s / FRAME_S)
            await asyncio.sleep(RECOGNIZE.of(num_frames))
            return [ChunkFailure("nothing", "was recognized")]

        async for _ in fan_out(groups(), recognize, max_in_flight):
            pass
        return sent_s

    return run_simulated(run())


@given(
    lengths_s=st.lists(
        st.lists(st.integers(1, 3000).map(lambda frames: frames * FRAME_S), max_size=4),
        min_size=1,
        max_size=20,
    ),
    max_in_flight=st.integers(1, 8),
)
@settings(deadline=None)
def test_a_simulated_segmenter_sends_groups_when_fan_out_does(
    lengths_s: Blocks, max_in_flight: int
) -> None:
    blocks = blocks_of(lengths_s)
    model, service = (
        sent_by_the_model(blocks, max_in_flight),
        sent_by_fan_out(blocks, max_in_flight),
    )
    assert model == pytest.approx(service, abs=1e-6)
