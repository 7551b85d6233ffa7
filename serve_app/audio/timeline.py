"""Places decoded frames in time and reports the gaps between them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from serve_app.audio.containers import (
    CUT_ANYWHERE,
    JOINABLE,
    TIMED,
    WITHOUT_PADDING,
    WITHOUT_PAUSES,
)
from serve_app.audio.damage import DamageReport
from serve_app.audio.layout import AudioLimits
from serve_app.core.errors import AudioTooLong

# Opus in WebM rounds times to 1 ms and codecs have delays of some 50 ms.
_GAP_S = 0.1
# After a failure every millisecond counts.
_GAP_AFTER_FAILURE_S = 0.001
_MAX_LOST_S = 60.0
# At a cut, up to this much of a stream may be unusable.
_CUT_S = 0.5
# A gap in the recording has no bytes in the file; a damaged range has many.
_SKIPPED_SHARE = 0.3
# A gap shorter than this share of a frame may be rounding.
_FRAME_SHARE = 0.5

# A jump up to this is checked against the next frame for a step forward only.
_BIG_JUMP_S = 1.0


@dataclass(frozen=True, slots=True)
class Loss:
    """What went wrong between two frames.

    Attributes:
        lost_s: audio that could not be decoded.
        skipped_s: estimated audio in bytes that the demuxer skipped.
        why: a clause in plain English; None if nothing is known to be wrong.
    """

    lost_s: float = 0.0
    skipped_s: float = 0.0
    why: str | None = None

    def with_lost(self, duration_s: float) -> Loss:
        """Adds audio that could not be decoded."""
        return Loss(self.lost_s + duration_s, self.skipped_s, "the data is damaged")

    def with_skipped(self, duration_s: float) -> Loss:
        return replace(self, skipped_s=self.skipped_s + duration_s)

    def with_suspicion(self) -> Loss:
        """Marks the file as damaged here, with or without a gap."""
        return replace(self, why=self.why or MISSING)


NO_LOSS = Loss()
MISSING = "data is missing"


class Timeline:
    """Compares the times of frames with the samples so far.

    Args:
        container: of the file.
        zero_s: start time of the file's earliest stream.
        base_s: length of the audio before this file, if it was appended to another.
        limits: longest recording.
        report: receives the missing ranges.
        cut_anywhere: whether the ends may be broken without any damage.
    """

    def __init__(
        self,
        container: str,
        zero_s: float,
        base_s: float,
        limits: AudioLimits,
        report: DamageReport,
        cut_anywhere: bool | None = None,
    ) -> None:
        self._container = container
        self._timed = container in TIMED
        self._cut_anywhere = container in CUT_ANYWHERE if cut_anywhere is None else cut_anywhere
        self._zero_s = zero_s
        self._expected_s = 0.0
        self._limits = limits
        self._report = report
        self._begun = False
        self.position_s = base_s
        """Position of the next frame: the audio so far, including silence."""
        self.last_frame_s = 0.0

    @property
    def end_s(self) -> float:
        """End of the last frame, in the container's time."""
        return max(self._zero_s, 0.0) + self._expected_s

    def is_wrong(self, time_s: float | None, duration_s: float, next_s: float | None) -> bool:
        """True if the frame that follows contradicts the time of a frame.

        Args:
            time_s: of the frame, according to the container; None without one.
            duration_s: of the frame.
            next_s: time of the frame that follows, inf if there is none; None if unknown.
        """
        if not self._timed or time_s is None or next_s is None:
            return False
        gap_s = time_s - self._zero_s - self._expected_s
        off_s = abs(next_s - time_s - duration_s)
        if abs(gap_s) > _BIG_JUMP_S:
            return off_s > _BIG_JUMP_S
        if gap_s < -_GAP_S:
            return off_s > _GAP_S
        # A step forward may be a gap, unless the next frame's time shows none.
        return gap_s > _GAP_S and abs(off_s - gap_s) <= _GAP_S and off_s > _GAP_S

    def silence_before(self, time_s: float | None, loss: Loss) -> float:
        """Returns how much silence, in s, to insert before a frame.

        Args:
            time_s: of the frame, according to the container; None if it is wrong.
            loss: what went wrong since the previous frame.

        Raises:
            AudioTooLong: the gap alone is longer than any recording may be.
        """
        why, lost_s = loss.why, loss.lost_s
        silence_s = loss.lost_s if self._is_worth_filling(loss) else 0.0
        if self._timed and time_s is not None:
            gap_s = time_s - self._zero_s - self._expected_s
            if self._is_lost_frame(gap_s, loss):
                loss = loss.with_suspicion()
                why = loss.why
            silence_s = self._silence_of(gap_s, loss)
            if abs(gap_s) > self._least_gap_s(why is not None):
                self._expected_s = time_s - self._zero_s
            unlikely = self._container in WITHOUT_PAUSES or loss.skipped_s > _SKIPPED_SHARE * gap_s
            if self._begun and gap_s > self._least_gap_s(False) and unlikely:
                why = why or MISSING
            # Many bytes were skipped, but the times show no gap: they may be wrong themselves.
            if loss.skipped_s > _CUT_S and gap_s < _SKIPPED_SHARE * loss.skipped_s:
                why, lost_s = why or MISSING, max(lost_s, loss.skipped_s)
        elif self._timed:
            self._expected_s += silence_s
        self._report_gap(silence_s, lost_s, why)
        self.position_s += silence_s
        return silence_s

    def begin_late(self, duration_s: float) -> None:
        """Moves the start back by audio that is lost before the first frame."""
        self._zero_s -= duration_s

    def add(self, duration_s: float) -> None:
        """Appends a frame of this length."""
        self._begun = True
        self.last_frame_s = duration_s
        self._expected_s += duration_s
        self.position_s += duration_s

    def end(self, loss: Loss, lacking_s: float = 0.0) -> None:
        """Reports what was lost after the last frame.

        Args:
            loss: what went wrong there.
            lacking_s: audio that the header declares but the file lacks.
        """
        if not self._begun:
            return
        rest_s = max(loss.lost_s, loss.skipped_s, lacking_s)
        if lacking_s or rest_s > _CUT_S or (loss.why is not None and not self._cut_anywhere):
            end_s = self.position_s + max(rest_s, self.last_frame_s)
            self._report.add(self.position_s, end_s, loss.why or MISSING)
        elif loss.why is not None:
            self._report.notice("The file ends in the middle of its data; it may be cut off.")

    def _is_worth_filling(self, loss: Loss) -> bool:
        return self._begun or not self._cut_anywhere or loss.lost_s > _CUT_S

    def _is_lost_frame(self, gap_s: float, loss: Loss) -> bool:
        """True if skipped bytes account for a gap, however short."""
        if not self._begun or self._container not in WITHOUT_PADDING:
            return False
        shortest_s = _FRAME_SHARE * self.last_frame_s
        return gap_s > shortest_s and loss.skipped_s > _FRAME_SHARE * gap_s

    def _least_gap_s(self, suspicious: bool) -> float:
        if suspicious or self._container == "flac":
            return _GAP_AFTER_FAILURE_S
        return _GAP_S

    def _silence_of(self, gap_s: float, loss: Loss) -> float:
        """Returns how much silence fills a gap in the container's times."""
        if gap_s > _MAX_LOST_S and self._container in JOINABLE and self._begun:
            self._report.notice(
                "The times in the file jump; what follows was taken for another recording."
            )
            return loss.lost_s
        if gap_s > self._limits.max_duration_s:
            raise AudioTooLong(self.position_s + gap_s, self._limits.max_duration_s)
        if gap_s > self._least_gap_s(loss.why is not None):
            return gap_s
        # A step back (joined recordings) is a new origin.
        return loss.lost_s if gap_s < -_GAP_S else 0.0

    def _report_gap(self, silence_s: float, lost_s: float, why: str | None) -> None:
        start_s, end_s = self.position_s, self.position_s + silence_s
        if why is not None:
            if silence_s > 0:
                self._report.add(start_s, end_s, why)
            elif self._begun:
                self._report.add(start_s, start_s + max(lost_s, 0.01), why)
        elif silence_s > 0 and self._begun:
            self._report.notice(
                f"The file has no audio from {start_s:.1f} to {end_s:.1f} s; "
                "silence stands in its place."
            )
