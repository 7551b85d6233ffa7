"""The recordings that both the service and the simulator get."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import soundfile

from serve_app.cli.serve import demo_recording
from serve_app.core.ports import VoiceActivityDetector
from serve_app.core.records import RequestContext
from serve_app.inference.loading import segmentation_options
from serve_app.planning.speech import DecodedBlock, Recording, group_of
from serve_app.settings import Settings
from serve_app.transcript.segmentation import Segmentation

_RATE_HZ = 16_000


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording of the bundled speech, repeated to a length.

    Attributes:
        audio_s: its length.
        content: the FLAC file.
    """

    audio_s: float
    content: bytes


def make_clip(audio_s: float) -> Clip:
    spoken, _ = soundfile.read(demo_recording().path, dtype="int16")
    samples: npt.NDArray[np.int16] = np.resize(
        np.asarray(spoken, np.int16), round(audio_s * _RATE_HZ)
    )
    file = io.BytesIO()
    soundfile.write(file, samples, _RATE_HZ, format="FLAC", subtype="PCM_16")
    return Clip(audio_s, file.getvalue())


def cut(clip: Clip, vad: VoiceActivityDetector, settings: Settings) -> Recording:
    """Returns what the segmenter makes of a clip, for the simulator."""
    audio = np.frombuffer(clip.content, np.uint8)
    segmentation = Segmentation(audio, vad, segmentation_options(settings))
    windows: list[DecodedBlock] = []
    before_ms = 0
    for chunks in segmentation.groups(RequestContext("cut")):
        groups = (group_of([chunk.duration_s for chunk in chunks], 0.06),) if chunks else ()
        stretch_s = (segmentation.duration_ms - before_ms) / 1000
        before_ms = segmentation.duration_ms
        if stretch_s or not windows:
            windows.append(DecodedBlock(stretch_s, groups))
        else:
            windows[-1] = replace(windows[-1], groups=(*windows[-1].groups, *groups))
    return tuple(windows)
