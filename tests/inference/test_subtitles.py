"""The demo recording's subtitles, with and without the VAD."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from serve_app.core.records import Stage
from serve_app.inference.local import LocalTranscriber
from serve_app.settings import Settings
from serve_app.transcript.subtitles import Cue, cues
from serve_app.transcript.transcript import collect
from tests.fakes.sentence_edges import DEMO_FLAC, demo_recording, spoken_sentences

# Between sentences of the demo are 0.5 to 1.2 s; an extended cue may reach into that.
_LONG_GAP_MS = 1000


async def _subtitles(stages: frozenset[Stage]) -> list[Cue]:
    async with LocalTranscriber(Settings()) as transcriber:
        audio = np.fromfile(DEMO_FLAC, np.uint8)
        transcript = await collect(transcriber.transcribe(audio, stages))
    return list(cues(transcript.sentences, duration_ms=transcript.duration_ms))


@pytest.mark.parametrize("stages", [("vad", "asr", "punctuation"), ("asr",)], ids="-".join)
async def test_subtitles_of_the_demo_can_be_read_and_leave_its_gaps(
    stages: tuple[Stage, ...],
) -> None:
    found = await _subtitles(frozenset(stages))
    assert len(found) >= 13
    assert all(before.end_ms <= after.start_ms for before, after in pairwise(found))
    for cue in found:
        lines = cue.text.split("\n")
        assert len(lines) <= 2
        assert max(map(len, lines)) <= 18
        assert sum(map(str.isalnum, cue.text)) > 2
        assert 1000 <= cue.end_ms - cue.start_ms <= 7000
    for before, after in pairwise(spoken_sentences(demo_recording())):
        if after.start_ms - before.end_ms >= _LONG_GAP_MS:
            assert not any(
                cue.start_ms < before.end_ms and cue.end_ms > after.start_ms for cue in found
            )
            assert not any(before.end_ms < cue.start_ms < after.start_ms - 20 for cue in found)
