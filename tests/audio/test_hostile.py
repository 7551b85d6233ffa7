"""Files made to break a decoder: it must say no, stay small and open nothing else."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.audio import AudioDecoder, AudioLimits
from serve_app.core.errors import AudioError, AudioTooLong, CorruptAudio
from serve_app.core.records import SAMPLE_RATE_HZ
from tests.audio import recordings
from tests.fakes.mutated_audio import mutate

_CONTAINERS = ["wav", "rf64", "w64", "aiff", *recordings.COMPRESSED]


@functools.cache
def small_file(name: str) -> bytes:
    rate_hz = recordings.COMPRESSED.get(name, ("", "", 0))[2] or 44_100
    if name == "mp4":
        # The index stands first, where the mutations are.
        return recordings.mux(
            "ipod",
            "aac",
            recordings.sine(0.3, rate_hz),
            rate_hz,
            options={"moov_size": "2000"},
        )
    return recordings.encode(name, recordings.sine(0.3, rate_hz), rate_hz)


def outcome(file: bytes, limits: AudioLimits | None = None) -> AudioError | None:
    try:
        with AudioDecoder(file, limits or AudioLimits()) as decoder:
            for block in decoder.blocks():
                assert len(block)
    except AudioError as error:
        return error
    return None


@pytest.mark.parametrize("name", _CONTAINERS)
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_mutated_headers_decode_or_raise_an_audio_error(name: str, seed: int) -> None:
    outcome(mutate(small_file(name), seed))


@pytest.mark.parametrize("name", _CONTAINERS)
def test_every_truncation_of_the_header_decodes_or_raises_an_audio_error(name: str) -> None:
    file = small_file(name)
    for num_bytes in range(0, 200, 7):
        outcome(file[:num_bytes])


def test_nothing_is_printed_about_damaged_files(capfd: pytest.CaptureFixture[str]) -> None:
    for name in _CONTAINERS:
        for seed in range(20):
            outcome(mutate(small_file(name), seed))

    assert capfd.readouterr() == ("", "")


def test_a_flac_bomb_is_refused_by_its_header() -> None:
    bomb = recordings.encode("flac", np.zeros(8_000 * 1200, np.float32), 8_000)
    assert len(bomb) < 250_000

    with pytest.raises(AudioTooLong):
        AudioDecoder(bomb, AudioLimits(max_duration_s=60))


def test_a_flac_bomb_without_a_length_is_stopped_at_the_limit() -> None:
    bomb = bytearray(recordings.encode("flac", np.zeros(8_000 * 1200, np.float32), 8_000))
    # STREAMINFO: the 36 bits of the length end at byte 26.
    bomb[21] &= 0xF0
    bomb[22:26] = bytes(4)

    num_samples: list[int] = []
    with (
        AudioDecoder(bytes(bomb), AudioLimits(max_duration_s=60)) as decoder,
        pytest.raises(AudioTooLong),
    ):
        num_samples.extend(len(block) for block in decoder.blocks())
    assert sum(num_samples) <= 60 * SAMPLE_RATE_HZ


def test_a_gap_of_years_between_packets_is_too_long() -> None:
    file = recordings.mux(
        "matroska", "pcm_s16le", recordings.sine(2.0, 16_000), 16_000, pause_s=1e6
    )

    assert isinstance(outcome(file), AudioTooLong)


@pytest.mark.parametrize(
    ("codec", "table", "offset", "written"),
    [
        ("aac", b"stsz", 8, b"\0\0\0\4\x7f\xff\xff\xff"),
        ("aac", b"stco", 8, b"\x10\0\0\0"),
        ("pcm_s16le", b"stsc", 16, b"\x7f\xff\xff\xff"),
    ],
)
def test_an_mp4_that_declares_billions_of_samples_is_corrupt(
    codec: str, table: bytes, offset: int, written: bytes
) -> None:
    file = bytearray(recordings.mux("mov", codec, recordings.sine(30.0, 16_000), 16_000))
    at = file.index(table) + offset
    file[at : at + len(written)] = written

    assert isinstance(outcome(bytes(file)), CorruptAudio)


_MEASURE = """
import resource, sys
from pathlib import Path
from serve_app.audio import AudioDecoder, AudioLimits
peaks = []
for path in sys.argv[1:]:
    with AudioDecoder(Path(path), AudioLimits()) as decoder:
        for block in decoder.blocks():
            pass
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[1] - peaks[0])
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flac", "wav", "ogg"])
def test_memory_does_not_grow_with_the_recording(name: str, tmp_path: Path) -> None:
    rate_hz = 16_000
    codec = "flac" if name == "ogg" else None
    for minutes in (2, 20):
        noise = np.random.default_rng(0).normal(0, 0.01, rate_hz * 60).astype(np.float32)
        signal = np.tile(noise, minutes)
        file = recordings.encode(name, signal, rate_hz, codec)
        (tmp_path / f"{minutes}").write_bytes(file)

    grown = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path / "2"), str(tmp_path / "20")],
        check=True,
        capture_output=True,
        text=True,
    )

    assert int(grown.stdout) < 8_000
