from __future__ import annotations

from pathlib import Path

import soundfile

from loadtests.gpu.engines import find_speech
from serve_app.engines.fsmn_vad.engine import FsmnVad
from serve_app.packs import PackContents


def test_speech_is_cut_where_the_vad_hears_it(vad_pack: PackContents, vad_example: Path) -> None:
    pcm, _ = soundfile.read(vad_example, dtype="int16")
    spans = find_speech(FsmnVad(vad_pack), pcm)
    assert spans[0] == (70 * 16, 2340 * 16)
    assert all(end - start <= 30 * 16_000 for start, end in spans)
    assert spans == sorted(spans)
