"""The costs of a profile's models on this machine, each alone on its thread.

CPU seconds of the thread count, so that other work on the machine changes little; a
GPU's work is timed by the clock, because its thread only waits.
"""

from __future__ import annotations

import multiprocessing
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np

from loadtests.harness.clips import RATE_HZ, repeated, spoken
from loadtests.simulation.calibration import fit_batches
from serve_app.cli.serve import demo_recording
from serve_app.core.ports import Punctuator, Recognizer, SpeakerEmbedder
from serve_app.core.records import Pcm
from serve_app.core.speakers import STEP_MS, WINDOW_MS, SpeakerOptions, SpeakerWindows
from serve_app.inference.loading import (
    load_punctuator,
    load_recognizer,
    load_speaker_embedder,
    load_vad,
    segmentation_options,
)
from serve_app.planning.costs import Costs, LineCost, StartCost, shipped_costs
from serve_app.settings import Settings
from serve_app.speakers.diarization import diarize
from serve_app.transcript.segmentation import Segmentation

_SHAPES = ((1, 1.5), (1, 4.0), (1, 10.0), (2, 5.0), (4, 4.0), (3, 12.0), (8, 3.0), (6, 8.0))
"""Chunks in a batch, and the length of each in s."""
_GPU_FACTOR = 8
_TEXTS = ((1, 6), (1, 20), (2, 20), (5, 20), (12, 20))
"""Texts in a batch, and the words in each."""
_CLUSTERED_HOURS = (0.05, 0.2, 0.5, 1.0, 3.0)
_AUDIO_S = 120.0
_NODE_S = 180.0


def measure(settings: Settings, name: str, repeats: int) -> Costs:
    """Measures what can be measured without Ray, and says what was not.

    Raises:
        PackError: a pack of the profile is not here.
    """
    on_gpu = settings.recognizer.device.startswith("cuda")
    clock = time.perf_counter if on_gpu else time.thread_time
    recognizer = load_recognizer(settings).engine
    batch = _recognizer(recognizer, clock, repeats, _GPU_FACTOR if on_gpu else 1)
    slowdown = 1.0 if on_gpu else _slowdown(recognizer, repeats)
    punctuator = LineCost(0.0, 0.0)
    if "punctuation" in settings.stages:
        engine = load_punctuator(settings).engine
        punctuator = _punctuator(
            engine, time.perf_counter if settings.punctuator.device != "cpu" else clock, repeats
        )
    demo = shipped_costs("demo")
    assumed = {
        "request": "not measured here: taken from the demo profile's costs",
        "call": "not measured here: taken from the demo profile's costs",
        "start": f"{_NODE_S:.0f} s for a new node, where one is needed",
    }
    costs = Costs(
        name=name,
        origin=f"{_machine()}, one thread, {settings.recognizer.pack}, "
        f"{settings.recognizer.dtype} on {settings.recognizer.device}; "
        "`python -m loadtests simulation measure`",
        recognizer=batch,
        segmenter=LineCost(0.0, segmenter_s(settings, repeats)),
        punctuator=punctuator,
        request=demo.request,
        call=demo.call,
        start=StartCost(_start_s(settings), _NODE_S),
        words_per_s=len(demo_recording().text) * RATE_HZ / len(spoken()),
        slowdown=slowdown,
        assumed=assumed,
    )
    return with_speakers(costs, settings, repeats) if "speakers" in settings.stages else costs


def with_speakers(costs: Costs, settings: Settings, repeats: int) -> Costs:
    """Returns the costs with those of the stage `speakers`, measured.

    Raises:
        PackError: the speaker model is not here.
    """
    on_cpu = settings.speaker_embedder.device == "cpu"
    clock = time.thread_time if on_cpu else time.perf_counter
    engine = load_speaker_embedder(settings).engine
    section = settings.speaker_embedder
    return replace(
        costs,
        origin=f"{costs.origin}; speaker labels: {_machine()}, one thread, {section.pack}, "
        f"{section.dtype} on {section.device}, `measure --speakers-only`",
        embedder=_embedder(engine, clock, repeats),
        clustering=_clustering(engine, repeats),
    )


def _embedder(engine: SpeakerEmbedder, clock: Callable[[], float], repeats: int) -> LineCost:
    windows, items, took_s = [], [], []
    for num, length_s in _SHAPES:
        batch = _batch(num, length_s)
        windows.append(sum(engine.cost(len(pcm)) for pcm in batch))
        items.append(len(batch))
        took_s.append(_median(partial(engine.embed, batch), clock, repeats))
    return fit_batches(windows, items, took_s)


def _clustering(engine: SpeakerEmbedder, repeats: int) -> LineCost:
    """Returns the cost of telling the speakers of recordings of up to three hours apart.

    They consist of windows of the clip in another order, with noise, so that no two are equal.
    """
    (voice,) = engine.embed([spoken()])
    rng = np.random.default_rng(0)
    sizes, took_s = [], []
    for hours in _CLUSTERED_HOURS:
        number = round(hours * 3_600_000 / STEP_MS)
        noise = rng.normal(scale=0.5 / voice.shape[1] ** 0.5, size=(number, voice.shape[1]))
        drawn = voice[rng.integers(len(voice), size=number)] + noise
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        start_ms = np.arange(number, dtype=np.int64) * STEP_MS
        windows = SpeakerWindows(start_ms, start_ms + WINDOW_MS, drawn.astype(np.float32))
        sizes.append(number)
        work = partial(diarize, windows, SpeakerOptions())
        took_s.append(_median(work, time.process_time, repeats))
    return fit_batches(sizes, [0.0] * len(sizes), took_s)


def _recognizer(
    engine: Recognizer, clock: Callable[[], float], repeats: int, factor: int
) -> LineCost:
    frames, items, took_s = [], [], []
    for num, length_s in _SHAPES:
        batch = _batch(num * factor, length_s)
        frames.append(sum(engine.cost(len(pcm)) for pcm in batch))
        items.append(len(batch))
        took_s.append(_median(partial(engine.transcribe, batch), clock, repeats))
    return fit_batches(frames, items, took_s)


def _batch(num: int, length_s: float) -> Sequence[Pcm]:
    samples, length = spoken(), round(length_s * RATE_HZ)
    starts = np.linspace(0, len(samples) - length, num).astype(int)
    return [samples[start : start + length].copy() for start in starts]


def _punctuator(engine: Punctuator, clock: Callable[[], float], repeats: int) -> LineCost:
    words = list(demo_recording().text)
    sizes, took_s = [], []
    for num, length in _TEXTS:
        texts = [words[20 * i : 20 * i + length] for i in range(num)]
        sizes.append(num * length)
        took_s.append(_median(partial(engine.label, texts), clock, repeats))
    return fit_batches(sizes, [0.0] * len(sizes), took_s)


def segmenter_s(settings: Settings, repeats: int) -> float:
    """Returns the CPU time of decoding and cutting a second of audio."""
    audio = np.frombuffer(repeated(_AUDIO_S), np.uint8)
    vad = load_vad(settings).engine if "vad" in settings.stages else None
    options = segmentation_options(settings)

    def run() -> None:
        for _ in Segmentation(audio, vad, options).steps():
            pass

    return _median(run, time.thread_time, repeats) / _AUDIO_S


def _slowdown(engine: Recognizer, repeats: int) -> float:
    """Returns how much longer a batch takes while another thread is busy nearby."""
    batch = _batch(4, 4.0)

    def work() -> object:
        return engine.transcribe(batch)

    ratios = []
    for _ in range(3):
        alone_s = _median(work, time.thread_time, repeats)
        with _neighbor():
            crowded_s = _median(work, time.thread_time, repeats)
        ratios.append(crowded_s / alone_s)
    return max(1.0, statistics.median(ratios))


@contextmanager
def _neighbor() -> Iterator[None]:
    process = multiprocessing.get_context("spawn").Process(target=_keep_busy, daemon=True)
    process.start()
    time.sleep(1.0)
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _keep_busy() -> None:
    matrix = np.random.default_rng(0).random((512, 512), np.float32)
    while True:
        np.linalg.qr(matrix)


def _start_s(settings: Settings) -> float:
    """Returns how long a fresh process takes until its recognizer is warm."""
    code = (
        "import sys; from serve_app.settings import Settings; "
        "from serve_app.inference.loading import load_recognizer; "
        "load_recognizer(Settings.model_validate_json(sys.stdin.read()))"
    )
    began_s = time.perf_counter()
    subprocess.run(  # noqa: S603  # this very interpreter and a constant
        [sys.executable, "-c", code],
        input=settings.model_dump_json(),
        text=True,
        check=True,
    )
    return time.perf_counter() - began_s


def _median(work: Callable[[], object], clock: Callable[[], float], repeats: int) -> float:
    work()
    took_s = []
    for _ in range(repeats):
        began_s = clock()
        work()
        took_s.append(clock() - began_s)
    return statistics.median(took_s)


def _machine() -> str:
    return f"{platform.machine()}, Python {platform.python_version()}"
