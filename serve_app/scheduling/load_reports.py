"""What replicas report for autoscaling; Serve takes mappings of numbers."""

from __future__ import annotations

from typing import TypedDict


class RecognizerLoad(TypedDict):
    """What a recogniser's `record_autoscaling_stats` returns; `rtfx` is 0 until measured.

    Work for which nobody waits is in `background_audio_s` and nowhere else.
    """

    queued_audio_s: float
    running_audio_s: float
    rtfx: float
    audio_s_per_s: float
    background_audio_s: float


class SegmenterLoad(TypedDict):
    """What a segmenter's `record_autoscaling_stats` returns."""

    backlog_audio_s: float
