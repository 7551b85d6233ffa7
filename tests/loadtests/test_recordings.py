from pathlib import Path

import pytest
import soundfile

from loadtests.recordings import recording
from serve_app.core.errors import PackNotFound
from serve_app.packs import PackStore


def test_long_recording_lasts_70_seconds(vad_example: Path) -> None:
    info = soundfile.info(str(vad_example))
    assert (info.samplerate, info.channels) == (16_000, 1)
    assert info.duration == pytest.approx(70.47, abs=0.01)


def test_short_recording_lasts_4_seconds(asr_example: Path) -> None:
    assert soundfile.info(str(asr_example)).duration == pytest.approx(4.2, abs=0.05)


def test_unknown_recording_lists_known_ones(tmp_path: Path) -> None:
    with pytest.raises(PackNotFound, match=r"vad_example\.wav, asr_example\.wav"):
        recording("speech.wav", PackStore(tmp_path))
