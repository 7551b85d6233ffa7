"""What is urgent makes what is not stand still, in the engines' and the segmenter's threads."""

from __future__ import annotations

import asyncio
import io
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from serve_app.audio import AudioDecoder, AudioLimits
from serve_app.core.records import (
    Chunk,
    ChunkFailure,
    Pcm,
    Recognition,
    RecognitionOptions,
    RequestContext,
)
from serve_app.engines.ct_transformer import CtTransformerEngine
from serve_app.engines.fsmn_vad.engine import FsmnVad
from serve_app.engines.paraformer.cpu import ParaformerEngine
from serve_app.inference.batched import BatchedRecognizer
from serve_app.packs.integrity import BUILTIN_DIRECTORY
from serve_app.packs.pack import PackContents, open_pack
from serve_app.scheduling.fair_executor import FairExecutor
from serve_app.scheduling.micro_batcher import BatchLimits
from serve_app.scheduling.preemption import Preemption, ThreadNiceness, yield_point
from tests.fakes.engines import FakeRecognizer
from tests.fakes.signals import speech_like

_A_WHILE_S = 0.1


class Crossing:
    """Where a file and a clip meet: the file stops here, the clip looks whether it does."""

    def __init__(self) -> None:
        self.file_is_there = threading.Event()
        self._clip_is_there = threading.Event()
        self._file_went_on = threading.Event()
        self.clip_was_first = False

    def file(self) -> None:
        self.file_is_there.set()
        self._clip_is_there.wait(10)
        yield_point()
        self._file_went_on.set()

    def clip(self) -> None:
        self._clip_is_there.set()
        self.clip_was_first = not self._file_went_on.wait(_A_WHILE_S)


class CrossingRecognizer(FakeRecognizer):
    def __init__(self, crossing: Crossing) -> None:
        self._crossing = crossing

    def transcribe(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Recognition | ChunkFailure]:
        (self._crossing.file if batch[0].any() else self._crossing.clip)()
        return super().transcribe(batch, recognition_options)


async def test_batch_pauses_for_an_urgent_one() -> None:
    crossing = Crossing()
    engine = CrossingRecognizer(crossing)
    recognizer = BatchedRecognizer(
        engine, BatchLimits(1000), logging.getLogger("tests"), ThreadNiceness(urgent_ms=1000)
    )
    late = Chunk(RequestContext("file"), 7, 60_000, np.ones(3200, np.int16))
    file = asyncio.create_task(recognizer.transcribe([late]))
    await asyncio.to_thread(crossing.file_is_there.wait)
    clip = Chunk(RequestContext("clip"), 0, 0, np.zeros(3200, np.int16))
    results = [*await recognizer.transcribe([clip]), *await file]
    assert crossing.clip_was_first
    assert all(isinstance(result, Recognition) for result in results)
    await recognizer.close()


async def test_batch_pauses_for_an_urgent_one_of_another_model() -> None:
    crossing, preemption = Crossing(), Preemption()

    def model() -> BatchedRecognizer:
        return BatchedRecognizer(
            CrossingRecognizer(crossing),
            BatchLimits(1000),
            logging.getLogger("tests"),
            ThreadNiceness(urgent_ms=1000),
            preemption=preemption,
        )

    one, other = model(), model()
    late = Chunk(RequestContext("file"), 7, 60_000, np.ones(3200, np.int16))
    file = asyncio.create_task(one.transcribe([late]))
    await asyncio.to_thread(crossing.file_is_there.wait)
    await other.transcribe([Chunk(RequestContext("clip"), 0, 0, np.zeros(3200, np.int16))])
    assert crossing.clip_was_first
    await file
    await one.close()
    await other.close()


async def test_step_pauses_for_an_urgent_one() -> None:
    crossing = Crossing()
    thread: FairExecutor[None] = FairExecutor("test")
    file = asyncio.create_task(thread.run(crossing.file, RequestContext("file")))
    await asyncio.to_thread(crossing.file_is_there.wait)
    await thread.run(crossing.clip, RequestContext("clip"), urgent=True)
    assert crossing.clip_was_first
    await file
    await thread.close()


def _recognizer() -> Callable[[], object]:
    engine = ParaformerEngine(open_pack(BUILTIN_DIRECTORY / "paraformer-demo"))
    return lambda: engine.transcribe([speech_like(16_000, seed=1)])


def _punctuator() -> Callable[[], object]:
    engine = CtTransformerEngine(open_pack(BUILTIN_DIRECTORY / "ct-punc-demo"))
    return lambda: engine.label([list("今天天气很好")])


def _decoder() -> Callable[[], object]:
    file = io.BytesIO()
    soundfile.write(file, speech_like(16_000, seed=1), 16_000, format="FLAC")
    limits = AudioLimits(max_duration_s=60.0)

    def decode() -> list[Pcm]:
        with AudioDecoder(file.getvalue(), limits) as decoder:
            return list(decoder.blocks())

    return decode


@pytest.mark.parametrize("work_of", [_recognizer, _punctuator, _decoder])
def test_real_work_pauses_on_its_way(work_of: Callable[[], Callable[[], object]]) -> None:
    pauses(work_of())


def test_detecting_speech_pauses_on_its_way(vad_pack: PackContents) -> None:
    vad = FsmnVad(vad_pack)
    pauses(lambda: vad.open().push(speech_like(16_000 * 30, seed=1)))


def pauses(work: Callable[[], object]) -> None:
    preemption = Preemption()
    with ThreadPoolExecutor(1, initializer=preemption.respect) as thread:
        thread.submit(work).result(60)  # what is done once only is behind it
        with preemption.taken():
            done = thread.submit(work)
            with pytest.raises(TimeoutError):
                done.result(5 * _A_WHILE_S)
        done.result(60)
