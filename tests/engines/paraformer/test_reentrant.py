"""Engines in which an urgent batch may overtake give the same from two threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import soundfile

from serve_app.core.records import Pcm
from serve_app.engines.ct_transformer import CtTransformerEngine
from serve_app.engines.fsmn_vad.engine import FsmnVad
from serve_app.engines.paraformer.cpu import ParaformerEngine
from serve_app.packs.integrity import BUILTIN_DIRECTORY
from serve_app.packs.pack import PackContents, open_pack
from tests.fakes.signals import speech_like

_ROUNDS = 6


def recording() -> Pcm:
    pcm, _ = soundfile.read(BUILTIN_DIRECTORY / "samples" / "demo.flac", dtype="int16")
    return np.asarray(pcm, np.int16)


def test_recognizer_gives_the_same_from_two_threads() -> None:
    # New for each side: tables that grow with the longest item are what could go wrong.
    pack = open_pack(BUILTIN_DIRECTORY / "paraformer-demo")
    pcm = recording()
    batches = [[pcm[: 16_000 * (1 + number)]] for number in range(2 * _ROUNDS)]
    reference = ParaformerEngine(pack)
    wanted = [reference.transcribe(batch) for batch in batches]
    engine = ParaformerEngine(pack)
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(engine.transcribe, batches)) == wanted


def test_punctuator_gives_the_same_from_two_threads() -> None:
    pack = open_pack(BUILTIN_DIRECTORY / "ct-punc-demo")
    texts = [[list("今天天气很好我们去公园" * (1 + number))] for number in range(2 * _ROUNDS)]
    reference = CtTransformerEngine(pack)
    wanted = [reference.label(batch) for batch in texts]
    engine = CtTransformerEngine(pack)
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(engine.label, texts)) == wanted


def test_vad_streams_of_two_threads_do_not_mix(vad_pack: PackContents) -> None:
    vad = FsmnVad(vad_pack)

    def segments(seed: int) -> list[object]:
        stream = vad.open()
        pcm = speech_like(16_000 * 8, seed=seed)
        found = [each for window in np.array_split(pcm, 8) for each in stream.push(window)]
        return [*found, *stream.finish()]

    seeds = list(range(_ROUNDS))
    wanted = [segments(seed) for seed in seeds]
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(segments, seeds)) == wanted
