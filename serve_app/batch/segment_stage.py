"""The first stage of a batch job: recordings in, utterances out.

Each segmenter has several recordings open. They share one core by a FIFO lock, one decoded
block at a time, and a recording that waits for its storage gives the lock up.
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

_PIECE_BYTES = 512 * 2**10
"""Audio that is put into one table; Ray Data puts those together into blocks."""


@dataclass(slots=True)
class _Account:
    """What became of one recording so far."""

    began_unix_s: float
    num_chunks: int = 0
    duration_ms: int = 0
    segment_s: float = 0.0
    damage: tuple[DamagedRange, ...] = ()
    notices: tuple[str, ...] = ()

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
        )


class RecordingSegmenter:
    """Decodes and cuts recordings; may be called by several threads at once.

    Args:
        vad: finds the speech; None to cut everything that there is.
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
            reading.range_bytes, reading.attempts, self._lock.given_up, reading.sleep
        )

    def tables(self, planned: list[Planned]) -> Iterator[pa.Table]:
        """Yields the rows of the recordings, one recording after another.

        A recording that is no good ends with a row that says so. The rows are the same
        each time, which is what lets Ray do the work again after a crash.
        """
        rows = AudioRows()
        for one in planned:
            for _ in self._recording(one, rows):
                if rows.num_bytes >= _PIECE_BYTES:
                    yield rows.take()
        yield rows.take()

    def _recording(self, one: Planned, rows: AudioRows) -> Iterator[None]:
        """Adds the rows of a recording, pausing after each window."""
        account = _Account(time.time())
        windows = self._windows(one, account)
        try:
            while True:
                with self._lock.mine():
                    cuts = next(windows, None)
                if cuts is None:
                    break
                for cut in cuts:
                    at = (one.number, account.num_chunks, cut.start_ms)
                    rows.add_chunk(*at, cut.pcm, one.language)
                    account.num_chunks += 1
                yield
            end = account.end()
        except AudioError as error:
            end = account.end((error.code, str(error)), permanent=True)
        except FileNotFoundError as error:
            end = account.end((NOT_FOUND, f"there is no such file: {error}"))
        except ReadFailed as error:
            reason = f"it cannot be read: {error}"
            end = account.end((READ_ERROR, reason), attempts=error.attempts)
        except OSError as error:
            end = account.end((READ_ERROR, f"it cannot be read: {error}"))
        # Whatever a library does with a hostile file, it concerns this recording alone.
        except Exception as error:
            end = account.end(("segmenter_error", f"{type(error).__name__}: {error}"))
        finally:
            with self._lock.mine():
                windows.close()
        rows.add_end(one.number, end)

    def _windows(self, one: Planned, account: _Account) -> Generator[list[ChunkAudio]]:
        with open_audio(one.uri, self._reading) as source:
            yield from self._steps(source, one, account)

    def _steps(
        self, source: AudioSource, one: Planned, account: _Account
    ) -> Iterator[list[ChunkAudio]]:
        vad = self._vad if one.use_vad else None
        segmentation = Segmentation(source, vad, self._segmentation)
        steps = segmentation.steps()
        try:
            while True:
                began_s = time.thread_time()
                cuts = next(steps, None)
                account.segment_s += time.thread_time() - began_s
                if cuts is None:
                    account.damage, account.notices = segmentation.damage, segmentation.notices
                    return
                account.duration_ms = segmentation.duration_ms
                yield cuts
        finally:
            steps.close()


class SegmentRecordings:
    """`RecordingSegmenter` as Ray Data calls it, a thread for each open recording."""

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
    """A lock that goes to whoever has waited the longest.

    Python's own lets a thread that releases it take it again at once, so that one
    recording could keep the others waiting to its end.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Waits for the turn and has it for the length of the block."""
        self._take()
        try:
            yield
        finally:
            self._pass_on()

    @contextmanager
    def given_up(self) -> Iterator[None]:
        """Lets others have the turn for the length of the block; only within `mine`."""
        self._pass_on()
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Event()
            self._waiting.append(mine)
        mine.wait()

    def _pass_on(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False
