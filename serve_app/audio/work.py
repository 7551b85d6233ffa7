"""Limits the work of decoding a recording.

A file of a few megabytes can hold millions of packets that carry hardly any audio. So the work
is measured, not the amount of audio. Decoding runs in slices, so that recordings can alternate,
and has a budget of CPU time and of pieces. The number of pieces exposes such a file long before
its CPU time is used up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from serve_app.core.errors import AudioTooComplex, AudioTooFragmented

_BYTES_PER_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class WorkBudget:
    """CPU time, in s, and pieces that decoding may take.

    Ordinary recordings take 1 to 30 ms for each second of audio, the most for codecs with
    very short packets.

    A piece is the output of one decoder call. The shortest that programs write are Opus
    packets of 2.5 ms, AMR frames of 20 ms, FLAC blocks of 192 samples (1 ms at 192 kHz), and
    IMA ADPCM of 64 samples (1.5 ms at 44.1 kHz); short blocks of Vorbis are not consecutive.
    So a file whose pieces average less than half a millisecond is an attack.

    Attributes:
        slice_s: length of a step, whether it yields audio or not. A clip that arrives
            meanwhile waits for one slice; a switch takes about 0.2 ms.
        call_s: longest single call of a library; it is stopped at its next read.
        base_s: for any file.
        per_audio_s: for each second of audio that was decoded.
        per_mb_s: for each million bytes of the file.
        base_pieces: for any file, regardless of their length.
        pieces_per_audio_s: for each second of audio that was decoded.
        usual_base_s: most that opening an ordinary recording takes, on a slow core.
        usual_per_audio_s: most that ordinary recordings take for each second of audio.
    """

    slice_s: float = 0.01
    call_s: float = 1.0
    base_s: float = 1.0
    per_audio_s: float = 0.1
    per_mb_s: float = 0.1
    base_pieces: int = 1000
    pieces_per_audio_s: int = 2000
    usual_base_s: float = 0.02
    usual_per_audio_s: float = 0.05


class WorkMeter:
    """Measures the CPU time and the pieces of one recording.

    Work may continue on another thread after each `pause`.

    Args:
        num_bytes: size of the file.
        budget: the limits.
        clock: CPU time of the calling thread, in s.
    """

    def __init__(
        self,
        num_bytes: int,
        budget: WorkBudget,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._budget = budget
        self._clock = clock
        self._file_s = budget.base_s + budget.per_mb_s * num_bytes / _BYTES_PER_MB
        self._num_pieces = 0
        self._earlier_s = 0.0
        self._slice_began_s: float | None = None
        self._call_began_s = 0.0
        self._stopped_call = False

    @property
    def spent_s(self) -> float:
        return self._earlier_s + self._slice_s

    @property
    def slice_is_over(self) -> bool:
        return self._slice_s >= self._budget.slice_s

    def resume(self) -> None:
        """Starts a slice on the calling thread."""
        self._slice_began_s = self._call_began_s = self._clock()

    def pause(self) -> None:
        """Ends the slice, on the thread that started it."""
        self._earlier_s += self._slice_s
        self._slice_began_s = None

    def begin_call(self) -> None:
        """Starts a library call, whose reads ask `call_is_over`."""
        self._call_began_s = self._clock()

    def call_is_over(self) -> bool:
        """True if the current call has taken too long and must read no further."""
        if self._slice_began_s is None:
            return False
        self._stopped_call |= self._clock() - self._call_began_s > self._budget.call_s
        return self._stopped_call

    def count_piece(self) -> None:
        """Counts one output of a decoder."""
        self._num_pieces += 1

    def is_usual(self, decoded_s: float) -> bool:
        """Whether an ordinary recording would have taken as much CPU time."""
        budget = self._budget
        return self.spent_s <= budget.usual_base_s + budget.usual_per_audio_s * decoded_s

    def check(self, decoded_s: float) -> None:
        """Checks the work so far against the budget.

        Raises:
            AudioTooFragmented: the audio has too many pieces.
            AudioTooComplex: decoding took too much CPU time.
        """
        budget = self._budget
        if self._num_pieces > budget.base_pieces + budget.pieces_per_audio_s * decoded_s:
            raise AudioTooFragmented(self._num_pieces, decoded_s)
        allowed_s = self._file_s + self._budget.per_audio_s * decoded_s
        if self._stopped_call or self.spent_s > allowed_s:
            raise AudioTooComplex(self.spent_s, decoded_s)

    @property
    def _slice_s(self) -> float:
        return 0.0 if self._slice_began_s is None else self._clock() - self._slice_began_s
