"""The segmenters of a batch job, which cut recordings into chunks.

Each segmenter has several recordings open, a thread each. They share one core by a
first-in-first-out lock, which a thread holds for one decoded block and releases while it
waits for storage.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from serve_app.audio.bytesource import AudioSource
from serve_app.batch.arrow_tables import AudioEnd, AudioRows, Planned, read_plan
from serve_app.batch.records import NOT_FOUND, READ_ERROR
from serve_app.batch.remote_reader import READ_RANGE_BYTES, ReadFailed, ReadOptions, open_audio
from serve_app.core.errors import AudioError
from serve_app.core.ports import VoiceActivityDetector
from serve_app.core.records import DamagedRange
from serve_app.inference.loading import load_vad, segmentation_options
from serve_app.settings import Settings
from serve_app.transcript.chunking import ChunkAudio
from serve_app.transcript.segmentation import Segmentation, SegmentationOptions

_TABLE_BYTES = 512 * 2**10
"""Audio in one table; Ray Data combines tables into blocks."""


@dataclass(slots=True)
class _RecordingState:
    """What is known of one recording so far."""

    began_unix_s: float
    num_chunks: int = 0
    duration_ms: int = 0
    segment_s: float = 0.0
    damage: tuple[DamagedRange, ...] = ()
    notices: tuple[str, ...] = ()
    num_channels: int = 1

    def end(
        self,
        error: tuple[str, str] | None = None,
        *,
        permanent: bool = False,
        attempts: int = 1,
    ) -> AudioEnd:
        return AudioEnd(
            self.num_chunks,
            self.duration_ms,
            self.segment_s,
            self.began_unix_s,
            error,
            permanent,
            attempts,
            self.damage,
            self.notices,
            self.num_channels,
        )


class RecordingSegmenter:
    """Decodes and cuts recordings; thread-safe.

    Args:
        vad: detects speech; None to cut all audio.
        segmentation: how to cut.
        reading: how to read; its `idle` is replaced.
    """

    def __init__(
        self,
        vad: VoiceActivityDetector | None,
        segmentation: SegmentationOptions,
        reading: ReadOptions,
    ) -> None:
        self._vad = vad
        self._segmentation = segmentation
        self._lock = FifoLock()
        self._reading = ReadOptions(
            reading.range_bytes, reading.attempts, self._lock.released, reading.sleep
        )

    def tables(self, planned: list[Planned]) -> Iterator[pa.Table]:
        """Yields the rows of the recordings, one recording after another.

        A failed recording ends with a row that has its error. The rows are deterministic, so
        Ray can repeat the work after a crash.
        """
        rows = AudioRows()
        for one in planned:
            for _ in self._recording(one, rows):
                if rows.num_bytes >= _TABLE_BYTES:
                    yield rows.take()
        yield rows.take()

    def _recording(self, one: Planned, rows: AudioRows) -> Iterator[None]:
        """Adds the rows of a recording; yields after each decoded block."""
        state = _RecordingState(time.time())
        windows = self._windows(one, state)
        try:
            while True:
                with self._lock.held():
                    cuts = next(windows, None)
                if cuts is None:
                    break
                for cut in cuts:
                    rows.add_chunk(one.number, state.num_chunks, cut, one.language)
                    state.num_chunks += 1
                yield
            end = state.end()
        except AudioError as error:
            end = state.end((error.code, str(error)), permanent=True)
        except FileNotFoundError as error:
            end = state.end((NOT_FOUND, f"there is no such file: {error}"))
        except ReadFailed as error:
            reason = f"it cannot be read: {error}"
            end = state.end((READ_ERROR, reason), attempts=error.attempts)
        except OSError as error:
            end = state.end((READ_ERROR, f"it cannot be read: {error}"))
        # Any library error on a hostile file fails this recording only.
        except Exception as error:
            end = state.end(("segmenter_error", f"{type(error).__name__}: {error}"))
        finally:
            with self._lock.held():
                windows.close()
        rows.add_end(one.number, end)

    def _windows(self, one: Planned, state: _RecordingState) -> Generator[list[ChunkAudio]]:
        with open_audio(one.uri, self._reading) as source:
            yield from self._steps(source, one, state)

    def _steps(
        self, source: AudioSource, one: Planned, state: _RecordingState
    ) -> Iterator[list[ChunkAudio]]:
        vad = self._vad if one.use_vad else None
        segmentation = Segmentation(
            source, vad, self._segmentation, separate_channels=one.separate_channels
        )
        steps = segmentation.steps()
        try:
            while True:
                began_s = time.thread_time()
                cuts = next(steps, None)
                state.segment_s += time.thread_time() - began_s
                if cuts is None:
                    state.damage, state.notices = segmentation.damage, segmentation.notices
                    return
                state.duration_ms = segmentation.duration_ms
                state.num_channels = segmentation.num_channels
                yield cuts
        finally:
            steps.close()


class SegmentRecordings:
    """`RecordingSegmenter` for Ray Data, which calls it with a thread per open recording."""

    def __init__(self, settings: Settings) -> None:
        batch = settings.batch
        vad = load_vad(settings).engine if "vad" in settings.stages else None
        self._segmenter = RecordingSegmenter(
            vad,
            segmentation_options(settings),
            ReadOptions(READ_RANGE_BYTES, batch.read_attempts),
        )

    def __call__(self, plan: pa.Table) -> Iterator[pa.Table]:
        yield from self._segmenter.tables(read_plan(plan))


class FifoLock:
    """A lock that threads acquire in order of arrival.

    With `threading.Lock`, a thread that releases it may acquire it again at once, so one
    recording could block the others until its end.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._is_held = False
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the lock for the length of the block."""
        self._acquire()
        try:
            yield
        finally:
            self._release()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Releases the lock for the length of the block; only within `held`."""
        self._release()
        try:
            yield
        finally:
            self._acquire()

    def _acquire(self) -> None:
        with self._guard:
            if not self._is_held:
                self._is_held = True
                return
            ready = threading.Event()
            self._waiting.append(ready)
        ready.wait()

    def _release(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._is_held = False
