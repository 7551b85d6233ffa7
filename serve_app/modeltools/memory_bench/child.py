"""The process that `running` starts per row: loads stages, runs them once, reads the memory."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serve_app.core.ports import Punctuator, Recognizer, SpeakerEmbedder, VoiceActivityDetector
from serve_app.core.records import SAMPLE_RATE_HZ, SAMPLES_PER_MS, Pcm
from serve_app.core.speakers import SpeakerOptions, join_windows
from serve_app.engines.gpu_memory import gpu_memory
from serve_app.inference.loading import (
    find_pack,
    load_punctuator,
    load_recognizer,
    load_speaker_embedder,
    load_vad,
)
from serve_app.inference.voices import windows_of_chunks
from serve_app.modeltools.memory_bench.running import RESULT_PREFIX
from serve_app.modeltools.random_packs.noise import TOKENS_PER_S, speech_like
from serve_app.packs import PackContents
from serve_app.settings import Settings
from serve_app.speakers.diarization import diarize
from serve_app.transcript.chunking import ChunkAudio

_WITHOUT_PYTORCH = frozenset({"onnx", "whispercpp"})
_CLIP_S = 6
_BATCH_FRAMES = 1000
_GROUP_CLIPS = 5
_TEXT_WORDS = 20

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Measured:
    """Memory and speed of a process.

    Attributes:
        imported_bytes: resident after the imports.
        load_s: from then until all stages were loaded.
        rss_bytes: resident after the audio was run.
        pss_bytes: likewise, shared pages divided among their owners.
        peak_bytes: the most that was resident while it loaded and ran.
        gpu_bytes: reserved on the device; None without one.
        run_s: for the audio, all stages one after the other.
        run_cpu_s: likewise, in CPU seconds.
        weights_bytes: of the packs' checkpoints.
    """

    imported_bytes: int
    load_s: float
    rss_bytes: int
    pss_bytes: int
    peak_bytes: int
    gpu_bytes: int | None
    run_s: float
    run_cpu_s: float
    weights_bytes: int


def measure(settings: Settings, stages: list[str], seconds: float) -> Measured:
    """Loads the stages, runs them on synthesized audio, and reads the memory."""
    if _uses_pytorch(settings, stages):
        importlib.import_module("serve_app.engines.paraformer.cpu")
    imported_bytes = resident_memory().rss_bytes
    audio: Pcm = np.resize(speech_like(), round(seconds * SAMPLE_RATE_HZ))
    reset_peak()  # synthesis takes more memory than a small model
    begin_s = time.perf_counter()
    works = [_load(settings, stage, audio) for stage in stages]
    load_s = time.perf_counter() - begin_s
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    for work in works:
        work()
    run_s, run_cpu_s = time.perf_counter() - begin_s, time.process_time() - begin_cpu_s
    memory = resident_memory()
    on_gpu = gpu_memory(settings.recognizer.device)
    return Measured(
        imported_bytes=imported_bytes,
        load_s=load_s,
        rss_bytes=memory.rss_bytes,
        pss_bytes=memory.pss_bytes,
        peak_bytes=memory.peak_bytes,
        gpu_bytes=None if on_gpu is None else on_gpu.reserved_bytes,
        run_s=run_s,
        run_cpu_s=run_cpu_s,
        weights_bytes=sum(_weights_bytes(settings, stage) for stage in stages),
    )


def _uses_pytorch(settings: Settings, stages: list[str]) -> bool:
    """False for a recognizer without PyTorch; the row without stages measures the imports."""
    return stages != ["asr"] or settings.recognizer.engine not in _WITHOUT_PYTORCH


def _load(settings: Settings, stage: str, audio: Pcm) -> Work:
    if stage == "vad":
        vad = load_vad(settings).engine
        return lambda: _find_speech(vad, audio)
    if stage == "asr":
        recognizer = load_recognizer(settings).engine
        return lambda: _recognize(recognizer, audio)
    if stage == "speakers":
        embedder = load_speaker_embedder(settings).engine
        return lambda: _label_speakers(embedder, audio)
    punctuator = load_punctuator(settings).engine
    words = _words(find_pack(settings, settings.punctuator.pack), audio)
    return lambda: _punctuate(punctuator, words)


def _find_speech(vad: VoiceActivityDetector, audio: Pcm) -> None:
    stream = vad.open()
    for first in range(0, len(audio), SAMPLE_RATE_HZ):
        stream.push(audio[first : first + SAMPLE_RATE_HZ])
    stream.finish()


def _recognize(recognizer: Recognizer, audio: Pcm) -> None:
    """Recognizes clips of 6 s in batches of the size that the service would use."""
    clips = [clip for _, clip in _clips(audio)]
    in_batch = max(1, _BATCH_FRAMES // recognizer.cost(_CLIP_S * SAMPLE_RATE_HZ))
    for first in range(0, len(clips), in_batch):
        recognizer.transcribe(clips[first : first + in_batch])


def _label_speakers(embedder: SpeakerEmbedder, audio: Pcm) -> None:
    """Embeds chunks of 6 s in groups as the service would, and tells the speakers apart."""
    chunks = [
        ChunkAudio(first // SAMPLES_PER_MS, (first + len(clip)) // SAMPLES_PER_MS, clip)
        for first, clip in _clips(audio)
    ]
    windows = []
    for first in range(0, len(chunks), _GROUP_CLIPS):
        group = chunks[first : first + _GROUP_CLIPS]
        windows += windows_of_chunks(group, embedder.embed([chunk.pcm for chunk in group]))
    diarize(join_windows(windows), SpeakerOptions())


def _clips(audio: Pcm) -> list[tuple[int, Pcm]]:
    clip_samples = _CLIP_S * SAMPLE_RATE_HZ
    return [
        (first, audio[first : first + clip_samples]) for first in range(0, len(audio), clip_samples)
    ]


def _punctuate(punctuator: Punctuator, words: list[str]) -> None:
    """Labels overlapping windows of one text, as the service does."""
    for first in range(0, len(words), _TEXT_WORDS):
        punctuator.label([words[first : first + 2 * _TEXT_WORDS]])


def _words(pack: PackContents, audio: Pcm) -> list[str]:
    """Returns as many words of the vocabulary as such audio would have."""
    count = round(len(audio) / SAMPLE_RATE_HZ * TOKENS_PER_S)
    known = [token for token in pack.tokens if len(token) == 1] or list(pack.tokens)
    return [known[at % len(known)] for at in range(count)]


def _weights_bytes(settings: Settings, stage: str) -> int:
    names = {
        "vad": settings.vad.pack,
        "asr": settings.recognizer.pack,
        "punctuation": settings.punctuator.pack,
        "speakers": settings.speaker_embedder.pack,
    }
    pack = find_pack(settings, names[stage])
    files = pack.directory.glob("*.onnx") if pack.weights.suffix == ".onnx" else [pack.weights]
    return sum(path.stat().st_size for path in files)


def main(arguments: str) -> None:
    """Prints the measurements; the arguments are JSON from `running`."""
    given: dict[str, Any] = json.loads(arguments)
    settings = Settings.model_validate(given["settings"])
    measured = measure(settings, given["stages"], given["seconds"])
    print(RESULT_PREFIX + json.dumps(asdict(measured)), flush=True)


@dataclass(frozen=True, slots=True)
class ResidentMemory:
    """Memory in bytes.

    Attributes:
        rss_bytes: pages in memory, those shared with other processes included.
        pss_bytes: likewise, a shared page divided by the number of its owners.
        peak_bytes: the most `rss_bytes` has been since the process began, or since
            `reset_peak`.
    """

    rss_bytes: int
    pss_bytes: int
    peak_bytes: int


def resident_memory() -> ResidentMemory:
    """Reads this process' memory.

    Raises:
        OSError: this is not Linux, or /proc is not mounted.
    """
    status = Path("/proc/self/status")
    return ResidentMemory(
        _bytes_of(status, "VmRSS"),
        _bytes_of(Path("/proc/self/smaps_rollup"), "Pss"),
        _bytes_of(status, "VmHWM"),
    )


def reset_peak() -> None:
    """Resets the peak to the current resident size; does nothing where the kernel forbids it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _bytes_of(path: Path, key: str) -> int:
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise OSError(f"{path} has no {key}")


if __name__ == "__main__":
    main(sys.argv[1])
