"""Calls with a speaker on each channel, made from the demo recording."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import soundfile

from serve_app.core.records import SAMPLE_RATE_HZ, SAMPLES_PER_MS, FileBytes, Pcm
from tests.fakes.sentence_edges import demo_recording, spoken_sentences

# The other side begins before the first one has ended.
_EARLIER_MS = 1500
_MARGIN_MS = 100


def demo_call(num_sentences: int = 8) -> npt.NDArray[np.int16]:
    """A call, shape [n, 2]: the sides alternate and talk over one another at each change."""
    demo = demo_recording()
    sentences = spoken_sentences(demo)[:num_sentences]
    call = np.zeros(((sentences[-1].end_ms + 1000) * SAMPLES_PER_MS, 2), np.int16)
    for number, sentence in enumerate(sentences):
        said = demo[
            (sentence.start_ms - _MARGIN_MS) * SAMPLES_PER_MS : (sentence.end_ms + _MARGIN_MS)
            * SAMPLES_PER_MS
        ]
        side = number % 2
        start = (sentence.start_ms - _MARGIN_MS - side * _EARLIER_MS) * SAMPLES_PER_MS
        call[start : start + len(said), side] = said
    return call


def file_of(samples: npt.NDArray[np.int16] | Pcm, container: str = "FLAC") -> FileBytes:
    """A file of samples, shape [n] or [n, channels]."""
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE_HZ, format=container, subtype="PCM_16")
    return np.frombuffer(file.getvalue(), np.uint8)
