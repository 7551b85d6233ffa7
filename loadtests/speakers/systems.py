"""Who spoke when, by Paraserve and by FunASR's pipeline, from the same windows."""

from __future__ import annotations

import numpy as np

from loadtests.bench.peers import PeerMissing
from serve_app.core.speakers import SpeakerOptions, SpeakerTurn, SpeakerWindows
from serve_app.speakers.diarization import diarize

OURS, FUNASR = "Paraserve", "FunASR"


def turns_by(
    system: str, windows: SpeakerWindows, num_speakers: int | None = None
) -> tuple[SpeakerTurn, ...]:
    """Returns the turns that a system finds.

    Raises:
        PeerMissing: FunASR is not installed.
    """
    if system == OURS:
        return diarize(windows, SpeakerOptions(num_speakers=num_speakers)).turns
    return _by_funasr(windows, num_speakers)


def num_speakers(turns: tuple[SpeakerTurn, ...]) -> int:
    return len({turn.speaker for turn in turns})


def _by_funasr(windows: SpeakerWindows, num_speakers: int | None) -> tuple[SpeakerTurn, ...]:
    """`AutoModel` with a `spk_model` calls these two on its windows."""
    try:
        from funasr.models.campplus.cluster_backend import ClusterBackend
        from funasr.models.campplus.utils import postprocess
    except ImportError as error:
        raise PeerMissing(f"FunASR is not installed: {error}") from error
    # Its k-means draws from the global generator.
    np.random.seed(0)
    labels = ClusterBackend()(windows.embeddings.copy(), oracle_num=num_speakers)
    segments = [
        [start / 1000, end / 1000, None]
        for start, end in zip(windows.start_ms.tolist(), windows.end_ms.tolist(), strict=True)
    ]
    ranges = postprocess(segments, None, np.asarray(labels), windows.embeddings)
    return tuple(
        SpeakerTurn(round(start_s * 1000), round(end_s * 1000), int(speaker))
        for start_s, end_s, speaker in ranges
    )
