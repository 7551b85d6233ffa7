from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from serve_app.audio import AudioDecoder, AudioInfo, AudioLimits
from serve_app.audio.bytesource import AudioSource
from serve_app.core.records import SAMPLE_RATE_HZ, Pcm
from tests.audio import recordings


def decode(source: AudioSource, limits: AudioLimits | None = None) -> tuple[AudioInfo, Pcm]:
    with AudioDecoder(source, limits or AudioLimits()) as decoder:
        blocks = list(decoder.blocks())
        assert decoder.decoded_samples == sum(len(block) for block in blocks)
        return decoder.info, np.concatenate(blocks)


def share_at(pcm: Pcm, pitch_hz: float = 440.0) -> float:
    """The share of the energy that is at one pitch, whatever its phase."""
    samples = pcm.astype(np.float64)
    wave = np.exp(-2j * np.pi * pitch_hz * np.arange(len(pcm)) / SAMPLE_RATE_HZ)
    return float(2 * abs(wave @ samples) ** 2 / (len(pcm) * (samples @ samples)))


@pytest.mark.parametrize("name", ["wav", "rf64", "w64", "aiff", *recordings.COMPRESSED])
def test_every_container_gives_back_the_sine(name: str) -> None:
    rate_hz = recordings.COMPRESSED.get(name, ("", "", 0))[2] or 44_100

    info, pcm = decode(recordings.encode(name, recordings.sine(3.0, rate_hz), rate_hz))

    assert info.container == name
    assert info.sample_rate_hz == rate_hz
    assert pcm.dtype == np.int16
    assert abs(len(pcm) / SAMPLE_RATE_HZ - 3.0) < 0.15
    assert share_at(pcm[1600:-3200]) > (0.9 if name == "amr" else 0.99)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT", "DOUBLE"])
def test_every_sample_format_of_wav_keeps_the_level(subtype: str) -> None:
    signal = recordings.sine(1.0, SAMPLE_RATE_HZ)

    _, pcm = decode(recordings.encode("wav", signal, SAMPLE_RATE_HZ, subtype))

    tolerance = 256 if subtype == "PCM_U8" else 1
    assert np.abs(pcm - np.rint(signal * 32768)).max() <= tolerance


@pytest.mark.parametrize(
    ("codec", "name"),
    [
        ("ALAW", "alaw"),
        ("ULAW", "ulaw"),
        ("adpcm_ima_wav", "adpcm_ima_wav"),
        ("adpcm_ms", "adpcm_ms"),
        ("libmp3lame", "mp3"),
    ],
)
def test_companded_and_compressed_wav_is_decoded(codec: str, name: str) -> None:
    info, pcm = decode(recordings.encode("wav", recordings.sine(2.0, 16_000), 16_000, codec))

    assert (info.container, info.codec) == ("wav", name)
    assert abs(len(pcm) / SAMPLE_RATE_HZ - 2.0) < 0.15
    assert share_at(pcm[1600:-1600]) > 0.99


def test_sixteen_bit_mono_at_16_khz_comes_out_bit_for_bit() -> None:
    samples = np.random.default_rng(1).integers(-32768, 32768, 40_000).astype(np.int16)
    signal = samples.astype(np.float32) / np.float32(32768)

    for name in ("wav", "flac"):
        _, pcm = decode(recordings.encode(name, signal, SAMPLE_RATE_HZ))
        np.testing.assert_array_equal(pcm, samples)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 32_000, 44_100, 96_000, 192_000])
def test_every_rate_keeps_pitch_and_exact_length(rate_hz: int) -> None:
    _, pcm = decode(recordings.encode("wav", recordings.sine(2.0, rate_hz), rate_hz))

    assert abs(len(pcm) - 2 * SAMPLE_RATE_HZ) <= 1
    assert share_at(pcm) > 0.999


@pytest.mark.parametrize("channels", [1, 2, 6, 8])
@pytest.mark.parametrize("name", ["wav", "flac", "webm"])
def test_channels_are_mixed_by_the_mean(name: str, channels: int) -> None:
    signal = np.zeros((96_000, channels), np.float32)
    signal[:, -1] = recordings.sine(2.0, 48_000)

    info, pcm = decode(recordings.encode(name, signal, 48_000))

    assert info.channels == channels
    expected = 0.4 * 32768 / channels
    if name == "webm":
        # Opus codes a fourth channel as an effect channel or a pair; levels move.
        assert np.abs(pcm[3200:-3200]).max() == pytest.approx(expected, rel=0.25)
    else:
        assert np.abs(pcm[3200:-3200]).max() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
@pytest.mark.parametrize("name", ["wav", "flac", "ogg", "opus", "mp3", "mp4", "webm"])
def test_a_click_stays_where_it_was(name: str, rate_hz: int) -> None:
    codec = {"ogg": "flac", "webm": "libopus"}.get(name)
    # Opus itself knows 48 kHz only.
    rate_hz = 48_000 if name in {"webm", "opus"} else rate_hz
    signal = recordings.clicks(60.0, rate_hz, at_s=10.0)

    _, pcm = decode(recordings.encode("ogg" if name == "opus" else name, signal, rate_hz, codec))

    assert np.abs(pcm.astype(np.int32)).argmax() / SAMPLE_RATE_HZ == pytest.approx(10.0, abs=0.02)
    assert len(pcm) / SAMPLE_RATE_HZ == pytest.approx(60.0, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mp3", "mp4", "webm", "flac"])
def test_times_do_not_drift_towards_the_end(name: str) -> None:
    signal = recordings.clicks(300.0, 48_000, at_s=299.0)

    _, pcm = decode(recordings.encode(name, signal, 48_000))

    assert np.abs(pcm.astype(np.int32)).argmax() / SAMPLE_RATE_HZ == pytest.approx(299.0, abs=0.02)


def test_video_beside_the_audio_is_ignored() -> None:
    file = recordings.mux("mp4", "aac", recordings.sine(3.0, 44_100), 44_100, video=True)

    info, pcm = decode(file)

    assert info.codec == "aac"
    assert len(pcm) / SAMPLE_RATE_HZ == pytest.approx(3.0, abs=0.05)
    assert share_at(pcm[1600:-3200]) > 0.99


def test_a_gap_between_packets_becomes_silence() -> None:
    signal = recordings.sine(4.0, 16_000)
    file = recordings.mux("matroska", "pcm_s16le", signal, 16_000, pause_s=3.0)

    _, pcm = decode(file)

    assert len(pcm) / SAMPLE_RATE_HZ == pytest.approx(7.0, abs=0.1)
    assert not pcm[40_000:72_000].any()
    assert share_at(pcm[82_000:]) > 0.99


def test_a_fragmented_mp4_declares_no_length() -> None:
    signal = recordings.sine(3.0, 16_000)
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "500000"}

    info, pcm = decode(recordings.mux("mp4", "aac", signal, 16_000, options=options))

    assert info.declared_s is None
    assert len(pcm) / SAMPLE_RATE_HZ == pytest.approx(3.0, abs=0.15)


def test_joined_ogg_streams_of_different_rates_follow_each_other() -> None:
    first = recordings.encode("ogg", recordings.sine(2.0, 44_100), 44_100, "flac")
    second = recordings.encode("ogg", recordings.sine(2.0, 16_000), 16_000, "flac")

    _, pcm = decode(first + second)

    assert len(pcm) / SAMPLE_RATE_HZ == pytest.approx(4.0, abs=0.1)
    assert share_at(pcm[:31_000]) > 0.99
    assert share_at(pcm[-31_000:]) > 0.99


def test_joined_aac_streams_of_different_rates_follow_each_other() -> None:
    first = recordings.encode("aac", recordings.sine(2.0, 44_100), 44_100)
    second = recordings.encode("aac", recordings.sine(2.0, 16_000), 16_000)

    _, pcm = decode(first + second)

    assert len(pcm) / SAMPLE_RATE_HZ == pytest.approx(4.1, abs=0.2)
    assert share_at(pcm[-24_000:-3200]) > 0.99


def test_a_handmade_amr_file_lasts_20_ms_a_frame() -> None:
    info, pcm = decode(recordings.silent_amr(150))

    assert (info.container, info.codec, info.sample_rate_hz) == ("amr", "amrnb", 8_000)
    assert len(pcm) == 3 * SAMPLE_RATE_HZ


def test_an_id3_tag_before_the_audio_is_skipped() -> None:
    tag = b"ID3\x04\x00\x00\x00\x00\x20\x00" + bytes(0x20 << 7)

    for name in ("mp3", "aac", "flac"):
        info, pcm = decode(tag + recordings.encode(name, recordings.sine(1.0, 16_000), 16_000))
        assert info.container == name
        assert len(pcm) / SAMPLE_RATE_HZ == pytest.approx(1.0, abs=0.15)


def test_every_kind_of_source_gives_the_same(tmp_path: Path) -> None:
    file = recordings.encode("mp4", recordings.sine(1.0, 16_000), 16_000)
    path = tmp_path / "recording"
    path.write_bytes(file)
    array = np.frombuffer(file, np.uint8)

    _, expected = decode(file)
    for source in (memoryview(file), array, path, io.BytesIO(file)):
        np.testing.assert_array_equal(decode(source)[1], expected)


def test_the_callers_file_stays_open() -> None:
    file = io.BytesIO(recordings.encode("wav", recordings.sine(1.0, 16_000), 16_000))

    decode(file)

    assert not file.closed


def test_a_buffer_is_not_copied() -> None:
    signal = recordings.sine(600.0, 16_000)
    upload = np.frombuffer(recordings.encode("wav", signal, 16_000), np.uint8)
    del signal

    tracemalloc.start()
    with AudioDecoder(upload, AudioLimits()) as decoder:
        for _ in decoder.blocks():
            pass
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert upload.nbytes > 19_000_000
    assert peak_bytes < 4_000_000


def test_block_never_exceeds_its_limit_and_only_the_last_is_shorter() -> None:
    file = recordings.encode("mp3", recordings.sine(3.3, 44_100), 44_100)

    with AudioDecoder(file, AudioLimits(block_s=0.5)) as decoder:
        lengths = [len(block) for block in decoder.blocks()]

    assert lengths[:-1] == [8_000] * 6
    assert 0 < lengths[-1] <= 8_000


def test_blocks_do_not_share_memory() -> None:
    file = recordings.encode("wav", recordings.sine(2.0, 16_000), 16_000)

    with AudioDecoder(file, AudioLimits(block_s=0.5)) as decoder:
        first, second, *_ = decoder.blocks()

    assert not np.shares_memory(first, second)
