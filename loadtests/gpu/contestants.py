"""Recognizers and punctuation models on one device: ours and FunASR's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch

from loadtests.bench.peers import PeerMissing, as_float
from loadtests.gpu.options import Trial
from serve_app.core.records import NO_OPTIONS, ChunkFailure, Pcm, Recognition, RecognitionOptions
from serve_app.engines.cuda.options import GpuOptions as EngineOptions
from serve_app.engines.cuda.paraformer import GpuParaformer
from serve_app.packs import PackContents

Heard = Recognition | ChunkFailure


class Contestant(Protocol):
    """A recognizer; `hear` returns the text of each segment without spaces."""

    def hear(self, segments: list[Pcm]) -> list[str]: ...


class Ours:
    """Our engine as the service drives it: full batches, two under way at a time.

    Args:
        pack: the recognizer's.
        options: device and budget.
        dtype: of the matrix products.
        graphs: use CUDA graphs.
        memory_fraction: of the device.
        recognition_options: of every segment.
    """

    def __init__(
        self,
        pack: PackContents,
        options: Trial,
        dtype: str,
        graphs: bool = True,
        memory_fraction: float | None = None,
        recognition_options: RecognitionOptions = NO_OPTIONS,
    ) -> None:
        standard = EngineOptions()
        self._budget = options.max_batch_frames
        self._recognition_options = recognition_options
        self._engine = GpuParaformer(
            pack,
            EngineOptions(
                device=options.device,
                dtype=dtype,
                max_batch_rows=options.max_batch_frames,
                max_graphs=standard.max_graphs if graphs else 0,
                memory_fraction=memory_fraction,
            ),
        )
        self._threads = ThreadPoolExecutor(self._engine.max_in_flight)

    @property
    def warm_up(self) -> str:
        return str(self._engine.warm_up)

    def hear(self, segments: list[Pcm]) -> list[str]:
        return [text(heard) for heard in self.recognize(segments)]

    def recognize(self, segments: Iterable[Pcm]) -> Iterator[Heard]:
        """Yields a result a segment, in order."""
        for results in self._threads.map(self._transcribe, self._batches(segments)):
            yield from results

    def _transcribe(self, batch: list[Pcm]) -> list[Heard]:
        return self._engine.transcribe(batch, [self._recognition_options] * len(batch))

    def _batches(self, segments: Iterable[Pcm]) -> Iterator[list[Pcm]]:
        batch: list[Pcm] = []
        cost = 0
        for pcm in segments:
            frames = self._engine.cost(len(pcm))
            if batch and cost + frames > self._budget:
                yield batch
                batch, cost = [], 0
            batch.append(pcm)
            cost += frames
        if batch:
            yield batch


class AutoAllInOne:
    """FunASR's AutoModel with VAD and punctuation, a recording at a time."""

    def __init__(self, model: Any, batch_size_s: int) -> None:
        self._model = model
        self._batch_size_s = batch_size_s

    def read(self, recordings: Sequence[Pcm]) -> list[str]:
        texts = []
        for pcm in recordings:
            answers = self._model.generate(as_float(pcm), batch_size_s=self._batch_size_s)
            texts.append(answers[0]["text"].replace(" ", "") if answers else "")
        return texts


def auto_model(pack: PackContents, options: Trial, **models: object) -> Any:
    """FunASR's AutoModel on the device, without progress bars.

    Raises:
        PeerMissing: it is not installed, or does not load.
    """
    try:
        from funasr import AutoModel
    except ImportError as error:
        raise PeerMissing(f"FunASR is not installed: {error}") from error
    threads = torch.get_num_threads()
    try:
        return AutoModel(
            model=str(pack.directory),
            device=options.device,
            ncpu=threads,
            disable_update=True,
            disable_pbar=True,
            log_level="ERROR",
            **models,
        )
    except Exception as error:
        raise PeerMissing(f"AutoModel did not load: {error!r}") from error


def text(heard: Heard) -> str:
    """What was heard, without spaces; "!" for a failure, which no text has."""
    return "".join(words(heard)) if isinstance(heard, Recognition) else "!"


def words(heard: Heard) -> list[str]:
    return [token.text for token in heard.tokens] if isinstance(heard, Recognition) else []


def held_bytes(options: Trial) -> int:
    """Memory of the device that PyTorch holds for this process, what is cached included."""
    return torch.cuda.memory_reserved(options.device) if options.on_gpu else 0
