"""Recordings of any length out of the bundled one."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from loadtests.harness.clips import RATE_HZ, Clip, ClipLibrary


@pytest.fixture
def library(tmp_path: Path) -> ClipLibrary:
    return ClipLibrary(tmp_path)


@pytest.mark.parametrize("audio_s", [1, 3, 15, 30])
def test_short_recording_has_the_requested_length(library: ClipLibrary, audio_s: int) -> None:
    clip = library.clip(audio_s)
    assert clip.audio_s == audio_s
    assert soundfile.info(library.path(clip)).frames == clip.num_samples


def test_long_recording_is_whole_repetitions(library: ClipLibrary) -> None:
    clip, one = library.clip(400.0), library.clip(80.0)
    assert one.repetitions == 1
    assert clip.num_samples == clip.repetitions * one.num_samples
    assert clip.audio_s == pytest.approx(400.0, abs=one.audio_s / 2)
    samples, rate_hz = soundfile.read(library.path(clip), dtype="int16")
    assert (len(samples), rate_hz) == (clip.num_samples, RATE_HZ)
    assert (samples[: one.num_samples] == samples[-one.num_samples :]).all()


def test_repetition_ends_with_silence_and_at_a_block_of_the_vad(library: ClipLibrary) -> None:
    one = library.clip(80.0)
    samples, _ = soundfile.read(library.path(one), dtype="int16")
    assert not samples[-5 * RATE_HZ :].any()
    assert one.num_samples % 40_960 == 0


def test_hour_fits_the_default_limit_of_uploads(library: ClipLibrary) -> None:
    one = library.clip(80.0)
    size_per_s = library.path(one).stat().st_size / one.audio_s
    assert size_per_s * 3600 < 50 * 2**20


def test_recording_is_made_once(library: ClipLibrary) -> None:
    made = library.path(library.clip(3.0))
    before = made.stat().st_mtime_ns
    assert library.path(library.clip(3.2)).stat().st_mtime_ns == before


def test_recording_without_length_is_refused(library: ClipLibrary) -> None:
    with pytest.raises(ValueError, match="has a length"):
        library.clip(0.0)


async def asked(library: ClipLibrary, clips: list[Clip], answers: list[str]) -> dict[Clip, str]:
    left = iter(answers)

    async def ask(content: bytes) -> str:
        return next(left)

    return await library.texts(clips, ask)


async def test_text_of_repetitions_is_computed_from_one(library: ClipLibrary) -> None:
    short, long = library.clip(3.0), library.clip(250.0)
    texts = await asked(library, [short, long, long], ["短", "一。", "一。一。"])
    assert texts == {short: "短", long: "一。" * 3}


async def test_service_whose_text_depends_on_repetition_is_not_loaded(
    library: ClipLibrary,
) -> None:
    with pytest.raises(ValueError, match="its text twice"):
        await asked(library, [library.clip(80.0)], ["一。", "一。二。"])
