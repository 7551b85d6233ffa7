"""Endpointing of FSMN-VAD: speech segments from frame scores.

A frame is speech or silence by its score. A window over the last frames gives a state with
hysteresis. A segment opens when the state becomes speech, and closes after enough silence or at
the maximum length. Frame numbers count from the start of the recording.

Source: the rules are those of FunASR 1.4.16, `models/fsmn_vad_streaming/model.py`
(`FsmnVADStreaming`, `WindowDetector`), in its mode for many utterances, with
`do_extend` on and `dynamic_silence` off.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from serve_app.core.records import SpeechDetection, SpeechSegment

Scores: TypeAlias = npt.NDArray[np.float64]
FRAME_MS = 10

# A frame's level is between -60 dB (the floor of 1e-6) and 26 dB (400 full-scale samples), so
# lower thresholds have no effect.
_LOWEST_LEVEL_DB = -60.5
_LOWEST_SNR_DB = -87.0
_NO_NOISE_YET_DB = -99.9
# At 1 no frame would be speech.
_SUREST = 0.999


@dataclass(frozen=True, slots=True)
class VadOptions:
    """Options of speech detection.

    Attributes:
        max_end_silence_ms: silence that ends a segment, counted from its last
            speech; includes speech_to_silence_ms.
        max_single_segment_ms: maximum length of a segment.
        speech_noise_threshold: a frame is speech when the probability of speech
            exceeds that of silence by this much; higher finds less speech.
        window_ms: window of the hysteresis.
        silence_to_speech_ms: speech in the window that turns the state to speech.
        speech_to_silence_ms: speech in the window at which the state turns to silence.
        lookback_ms: margin before the window in which speech was detected.
        lookahead_ms: margin kept after the last speech.
        speech_to_noise_ratio: exponent of the silence probability.
        silence_ids: outputs of the network for silence.
        min_level_db: frames below are silence.
        min_snr_db: frames nearer to the noise level are silence.
        num_noise_frames: span of the running noise level.
    """

    max_end_silence_ms: int = 800
    max_single_segment_ms: int = 60_000
    speech_noise_threshold: float = 0.6
    window_ms: int = 200
    silence_to_speech_ms: int = 150
    speech_to_silence_ms: int = 150
    lookback_ms: int = 200
    lookahead_ms: int = 100
    speech_to_noise_ratio: float = 1.0
    silence_ids: tuple[int, ...] = (0,)
    min_level_db: float = -100.0
    min_snr_db: float = -100.0
    num_noise_frames: int = 100

    @classmethod
    def from_config(cls, conf: Mapping[str, object]) -> VadOptions:
        """Reads the `model_conf` of a pack; missing options keep their defaults."""
        default = cls()

        def number(key: str, fallback: float) -> float:
            return float(str(conf.get(key, fallback)))

        ids = conf.get("sil_pdf_ids", default.silence_ids)
        return cls(
            max_end_silence_ms=int(number("max_end_silence_time", default.max_end_silence_ms)),
            max_single_segment_ms=int(
                number("max_single_segment_time", default.max_single_segment_ms)
            ),
            speech_noise_threshold=number("speech_noise_thres", default.speech_noise_threshold),
            window_ms=int(number("window_size_ms", default.window_ms)),
            silence_to_speech_ms=int(
                number("sil_to_speech_time_thres", default.silence_to_speech_ms)
            ),
            speech_to_silence_ms=int(
                number("speech_to_sil_time_thres", default.speech_to_silence_ms)
            ),
            lookback_ms=int(number("lookback_time_start_point", default.lookback_ms)),
            lookahead_ms=int(number("lookahead_time_end_point", default.lookahead_ms)),
            speech_to_noise_ratio=number("speech_2_noise_ratio", default.speech_to_noise_ratio),
            silence_ids=tuple(int(i) for i in ids) if isinstance(ids, list | tuple) else (0,),
            min_level_db=number("decibel_thres", default.min_level_db),
            min_snr_db=number("snr_thres", default.min_snr_db),
            num_noise_frames=int(number("noise_frame_num_used_for_snr", default.num_noise_frames)),
        )

    def adapted(self, detection: SpeechDetection) -> VadOptions:
        """Returns the options of one recording with the values of its request.

        A frame is speech from a probability of (1 + speech_noise_threshold) / 2. A requested
        threshold of 0.5 gives this value; the mapping is linear below it, down to 0, and above
        it, up to nearly 1.
        """
        adapted = self
        if detection.silence_duration_ms is not None:
            adapted = replace(adapted, max_end_silence_ms=detection.silence_duration_ms)
        if detection.prefix_padding_ms is not None:
            adapted = replace(adapted, lookback_ms=detection.prefix_padding_ms)
        if detection.threshold is not None:
            own = (1 + self.speech_noise_threshold) / 2
            probability = float(np.interp(detection.threshold, (0, 0.5, 1), (0, own, _SUREST)))
            adapted = replace(adapted, speech_noise_threshold=2 * probability - 1)
        return adapted

    @property
    def needs_levels(self) -> bool:
        """Whether any recording can be below the level or SNR threshold."""
        return self.min_level_db > _LOWEST_LEVEL_DB or self.min_snr_db > _LOWEST_SNR_DB


class FrameClassifier:
    """Classifies frames as speech or silence; tracks the noise level."""

    def __init__(self, options: VadOptions) -> None:
        self._options = options
        self._noise_db = -100.0

    def classify(self, silence: Scores, levels_db: Scores | None) -> npt.NDArray[np.bool_]:
        """Returns which frames are speech.

        Args:
            silence: probability of silence per frame, [n].
            levels_db: level per frame, [n]; not used unless the options need it.
        """
        options = self._options
        noise = silence**options.speech_to_noise_ratio
        speech = 1.0 - silence >= noise + options.speech_noise_threshold
        if levels_db is not None and options.needs_levels:
            for i, level_db in enumerate(levels_db.tolist()):
                speech[i] = self._is_loud(bool(speech[i]), level_db)
        return speech

    def _is_loud(self, speech: bool, level_db: float) -> bool:
        options = self._options
        if level_db < options.min_level_db:
            return False
        if speech:
            return level_db - self._noise_db >= options.min_snr_db
        if self._noise_db < _NO_NOISE_YET_DB:
            self._noise_db = level_db
        else:
            span = options.num_noise_frames
            self._noise_db = (level_db + self._noise_db * (span - 1)) / span
        return False


class Endpointer:
    """Turns the speech frames of one recording into segments, incrementally.

    Work is done only at changes of the state; memory is one window of frames.
    """

    def __init__(self, options: VadOptions) -> None:
        self._window = int(options.window_ms / FRAME_MS)
        self._up = int(options.silence_to_speech_ms / FRAME_MS)
        self._down = int(options.speech_to_silence_ms / FRAME_MS)
        self._latency = self._window + int(options.lookback_ms / FRAME_MS)
        self._max_frames = math.floor(options.max_single_segment_ms / FRAME_MS)
        # When the state becomes silence, the window has already covered part of it.
        closing = (options.max_end_silence_ms - options.speech_to_silence_ms) / FRAME_MS
        self._closing_frames = max(1, math.ceil(closing))
        margin = int(options.lookahead_ms / FRAME_MS) + 1
        self._trim_frames = max(0, int(closing) - margin)

        self._next = 0  # number of the next frame
        self._floor = 0  # no segment starts before this frame
        self._history = np.zeros(self._window, dtype=np.bool_)
        self._start: int | None = None  # first frame of the open segment
        self._opened = 0  # frame at which it was detected
        self._silent_from: int | None = None  # frame at which the state became silence

    @property
    def open_since_ms(self) -> int | None:
        """Start of the open segment; None without one."""
        return None if self._start is None else self._start * FRAME_MS

    @property
    def keep_from_ms(self) -> int:
        """Lower bound for the start of the open and of all later segments."""
        if self._start is not None:
            return self._start * FRAME_MS
        return max(self._floor, self._next - self._latency) * FRAME_MS

    def push(self, speech: npt.NDArray[np.bool_]) -> list[SpeechSegment]:
        """Takes the next frames; returns the segments that they closed."""
        closed: list[SpeechSegment] = []
        while len(speech):
            speech = speech[self._advance(speech, closed) :]
        return closed

    def finish(self) -> list[SpeechSegment]:
        """Closes an open segment at the last frame."""
        closed: list[SpeechSegment] = []
        if self._start is not None:
            self._close(self._next - 1, closed)
        return closed

    def _advance(self, speech: npt.NDArray[np.bool_], closed: list[SpeechSegment]) -> int:
        """Processes frames up to the first that closes a segment, or all.

        Returns the number of processed frames.
        """
        ups, downs = self._crossings(speech)
        first, end = self._next, self._next + len(speech)
        frame = first
        while True:
            if self._start is None:
                frame = _first_from(ups, frame, end)
                if frame >= end:
                    break
                self._start = max(self._floor, frame - self._latency)
                self._opened = frame
                frame += 1
                continue
            too_long = max(self._start + self._max_frames, self._opened + 1)
            if self._silent_from is None:
                turn = _first_from(downs, frame, end)
                if too_long <= min(turn, end - 1):
                    return self._reset(too_long, too_long, closed) - first
                if turn >= end:
                    break
                self._silent_from = turn
                frame = turn + 1
                continue
            turn = _first_from(ups, frame, end)
            quiet = self._silent_from + self._closing_frames
            if min(turn, quiet, too_long) >= end:
                break
            if quiet < turn and quiet <= too_long:
                return self._reset(quiet, quiet - self._trim_frames, closed) - first
            if too_long <= turn:
                return self._reset(too_long, too_long, closed) - first
            self._silent_from = None
            frame = turn + 1
        self._next = end
        self._history = np.concatenate((self._history, speech))[len(speech) :]
        return len(speech)

    def _crossings(self, speech: npt.NDArray[np.bool_]) -> tuple[list[int], list[int]]:
        """Returns frames whose window switches the state to speech, and those to silence."""
        total = np.cumsum(np.concatenate((self._history, speech)), dtype=np.int64)
        in_window = total[self._window :] - total[: -self._window]
        ups = np.flatnonzero(in_window >= self._up) + self._next
        downs = np.flatnonzero(in_window <= self._down) + self._next
        return ups.tolist(), downs.tolist()

    def _reset(self, frame: int, last: int, closed: list[SpeechSegment]) -> int:
        """Closes the segment at frame `last`; clears the window up to `frame`."""
        self._next = frame + 1
        self._history = np.zeros(self._window, dtype=np.bool_)
        self._close(last, closed)
        return self._next

    def _close(self, last: int, closed: list[SpeechSegment]) -> None:
        if self._start is not None:
            closed.append(SpeechSegment(self._start * FRAME_MS, (last + 1) * FRAME_MS))
        self._start = self._silent_from = None
        self._floor = last + 1


def _first_from(frames: list[int], frame: int, end: int) -> int:
    """Returns the first of the ascending frames that is at least `frame`, else `end`."""
    index = bisect_left(frames, frame)
    return frames[index] if index < len(frames) else end
