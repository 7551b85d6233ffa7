from __future__ import annotations

import pytest

from serve_app.audio.containers import AUDIO_SUFFIXES, is_recording_name
from tests.audio.recordings import COMPRESSED

_USUAL = {
    "ogg": ".opus", "mp4": ".m4a", "matroska": ".mkv", "asf": ".wma", "mpegts": ".ts",
}  # fmt: skip


@pytest.mark.parametrize("container", ["wav", "w64", "aiff", *COMPRESSED])
def test_every_container_of_the_decoder_has_its_names(container: str) -> None:
    assert _USUAL.get(container, f".{container}") in AUDIO_SUFFIXES


@pytest.mark.parametrize("name", ["a.wav", "b/c.M4A", "über mich.mkv", "x.y.mp3"])
def test_recordings_are_recognized_by_name(name: str) -> None:
    assert is_recording_name(name)


@pytest.mark.parametrize(
    "name", ["._a.wav", "b/._c.m4a", ".hidden.mp3", ".git/a.wav", "a.txt", "wav"]
)
def test_hidden_files_and_others_are_not(name: str) -> None:
    assert not is_recording_name(name)
