"""Every way in which a file can be unusable has one error, and says so."""

from __future__ import annotations

import pickle
import struct

import numpy as np
import pytest

from serve_app.audio import AudioDecoder, AudioLimits
from serve_app.core.errors import (
    AudioError,
    AudioTooLong,
    AudioTooShort,
    CorruptAudio,
    EmptyUpload,
    InvalidSamples,
    TruncatedAudio,
    UnknownAudioFormat,
    UnsupportedAudioLayout,
)
from serve_app.core.records import SAMPLE_RATE_HZ, DamagedRange, Pcm
from tests.audio import recordings


def decoded_s(file: bytes, limits: AudioLimits | None = None) -> float:
    with AudioDecoder(file, limits or AudioLimits()) as decoder:
        return sum(len(block) for block in decoder.blocks()) / SAMPLE_RATE_HZ


def decoded(file: bytes) -> tuple[Pcm, tuple[DamagedRange, ...], tuple[str, ...]]:
    """Returns samples, damage and notices."""
    with AudioDecoder(file, AudioLimits()) as decoder:
        pcm = np.concatenate(list(decoder.blocks()))
        return pcm, decoder.damage, decoder.notices


def wav(seconds: float = 2.0) -> bytes:
    return recordings.encode("wav", recordings.sine(seconds, 16_000), 16_000)


def with_data_size(file: bytes, num_bytes: int) -> bytes:
    at = file.index(b"data") + 4
    return file[:at] + struct.pack("<I", num_bytes) + file[at + 4 :]


def faststart_m4a() -> bytes:
    signal = recordings.sine(5.0, 16_000)
    return recordings.mux("ipod", "aac", signal, 16_000, options={"moov_size": "20000"})


def test_no_bytes_is_an_empty_upload() -> None:
    with pytest.raises(EmptyUpload):
        decoded_s(b"")


@pytest.mark.parametrize(
    "content",
    [
        b"Hello, this is a text that somebody renamed to .wav\n" * 50,
        b"x",
        bytes(5000),
        b"RIFF\x00\x00\x00\x00WEBPVP8 ",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'></MPD>",
        np.random.default_rng(0).bytes(20_000),
    ],
    ids=["text", "byte", "zeros", "webp", "hls", "concat", "dash", "noise"],
)
def test_bytes_that_are_not_audio_are_an_unknown_format(content: bytes) -> None:
    with pytest.raises(UnknownAudioFormat):
        decoded_s(content)


def test_video_without_audio_is_an_unknown_format() -> None:
    with pytest.raises(UnknownAudioFormat, match="no audio stream"):
        decoded_s(recordings.video_only())


@pytest.mark.parametrize("name", ["wav", "rf64", "w64", "aiff"])
def test_cut_off_pcm_is_decoded_and_the_rest_reported(name: str) -> None:
    file = recordings.encode(name, recordings.sine(4.0, 16_000), 16_000)

    pcm, damage, _ = decoded(file[: len(file) // 2])

    assert len(pcm) / SAMPLE_RATE_HZ == pytest.approx(2.0, abs=0.05)
    assert [one.end_ms for one in damage] == [pytest.approx(4000, abs=2)]
    assert damage[0].start_ms == pytest.approx(2000, abs=50)


def test_pcm_of_which_nothing_is_left_is_truncated() -> None:
    file = wav(4.0)

    with pytest.raises(TruncatedAudio, match=r"declares 4\.00 s of audio, 0\.00 s"):
        decoded_s(file[:44])


def test_cut_off_adpcm_wav_is_decoded_and_the_rest_reported() -> None:
    file = recordings.encode("wav", recordings.sine(4.0, 16_000), 16_000, "adpcm_ima_wav")

    pcm, damage, _ = decoded(file[: len(file) // 2])

    assert len(pcm) / SAMPLE_RATE_HZ == pytest.approx(2.0, abs=0.2)
    assert damage[0].end_ms == pytest.approx(4000, abs=100)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_cut_off_flac_is_decoded_and_the_rest_reported(kept: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 80_000).astype(np.float32)
    file = recordings.encode("flac", noise, 16_000)

    pcm, damage, _ = decoded(file[: int(len(file) * kept)])

    # The encoder's frames are 0.29 s long.
    assert len(pcm) / SAMPLE_RATE_HZ == pytest.approx(5.0 * kept, abs=0.6)
    assert damage[-1].end_ms == pytest.approx(5000, abs=300)


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_cut_off_m4a_is_decoded_and_the_rest_reported(kept: float) -> None:
    file = faststart_m4a()

    pcm, damage, _ = decoded(file[: int(len(file) * kept)])

    # The index in front takes its share of the bytes.
    assert 0.5 < len(pcm) / SAMPLE_RATE_HZ < 5.0 * kept + 0.2
    assert damage[-1].end_ms == pytest.approx(5000, abs=200)


def test_m4a_without_its_index_is_corrupt() -> None:
    file = recordings.encode("mp4", recordings.sine(5.0, 16_000), 16_000)

    with pytest.raises(CorruptAudio, match="cut off"):
        decoded_s(file[: file.index(b"moov") - 4])


@pytest.mark.parametrize("num_bytes", [0, 0x7FFF_FFFF, 0x7FFF_F000 + 0xFFF, 0xFFFF_FFFF])
def test_wav_written_to_a_pipe_declares_nothing(num_bytes: int) -> None:
    file = with_data_size(wav(), num_bytes)

    with AudioDecoder(file, AudioLimits()) as decoder:
        assert decoder.info.declared_s is None
    assert decoded_s(file) == pytest.approx(2.0, abs=0.001)
    assert decoded_s(file[: len(file) // 2]) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("name", ["mp3", "ogg", "webm", "aac", "amr"])
def test_truncated_stream_is_decoded_up_to_its_end(name: str) -> None:
    rate_hz = recordings.COMPRESSED[name][2] or 16_000
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * rate_hz).astype(np.float32)
    file = recordings.encode(name, noise, rate_hz)

    assert 3.5 < decoded_s(file[: int(len(file) * 0.53)]) < 6.5


@pytest.mark.parametrize("name", ["mp3", "aac"])
def test_stream_that_starts_inside_a_frame_is_decoded(name: str) -> None:
    file = recordings.encode(name, recordings.sine(4.0, 16_000), 16_000)

    assert decoded_s(file[len(file) // 2 + 7 :]) == pytest.approx(2.0, abs=0.4)


@pytest.mark.parametrize("name", ["flac", "ogg"])
def test_a_changed_bit_loses_only_nearby_frames_and_is_reported(name: str) -> None:
    rate_hz = recordings.COMPRESSED[name][2] or 16_000
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * rate_hz).astype(np.float32)
    file = bytearray(recordings.encode(name, noise, rate_hz))
    file[len(file) // 2] ^= 4

    pcm, damage, _ = decoded(bytes(file))

    assert len(pcm) / SAMPLE_RATE_HZ == pytest.approx(10.0, abs=0.05)
    [lost] = damage
    assert 3_900 < lost.start_ms < lost.end_ms < 6_000
    if name == "ogg":
        middle = (lost.start_ms + lost.end_ms) * 8
        assert not pcm[middle - 80 : middle + 80].any()


@pytest.mark.parametrize("name", ["flac", "ogg", "webm", "mp4", "asf"])
def test_zeros_after_the_magic_are_corrupt(name: str) -> None:
    rate_hz = recordings.COMPRESSED[name][2] or 16_000
    file = recordings.encode(name, recordings.sine(1.0, rate_hz), rate_hz)

    with pytest.raises(AudioError) as raised:
        decoded_s(file[:24] + bytes(len(file)))
    assert type(raised.value) in {CorruptAudio, UnknownAudioFormat}


@pytest.mark.parametrize("name", ["wav", "flac", "aiff"])
def test_no_samples_is_too_short(name: str) -> None:
    with pytest.raises(AudioTooShort, match=r"lasts 0\.000 s"):
        decoded_s(recordings.encode(name, np.zeros(0, np.float32), 16_000))


def test_fifty_milliseconds_are_too_short() -> None:
    with pytest.raises(AudioTooShort, match=r"lasts 0\.050 s"):
        decoded_s(wav(0.05))


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_samples_are_silenced_and_reported(subtype: str, value: float) -> None:
    signal = recordings.sine(2.0, 16_000, channels=2).copy()
    signal[20_000, 1] = value

    pcm, damage, _ = decoded(recordings.encode("wav", signal, 16_000, subtype))

    assert len(pcm) == 2 * SAMPLE_RATE_HZ
    assert [(one.start_ms, one.end_ms) for one in damage] == [(1250, 1251)]


def test_a_file_without_any_number_is_invalid() -> None:
    signal = np.full(32_000, np.nan, np.float32)

    with pytest.raises(InvalidSamples, match=r"first at 0\.000 s"):
        decoded_s(recordings.encode("wav", signal, 16_000, "FLOAT"))


def test_loud_float_samples_are_clipped() -> None:
    signal = recordings.sine(1.0, 48_000) * np.float32(1e30)

    with AudioDecoder(recordings.encode("wav", signal, 48_000, "FLOAT"), AudioLimits()) as decoder:
        pcm = np.concatenate(list(decoder.blocks()))
    assert pcm.min() == -32768
    assert pcm.max() == 32767


@pytest.mark.parametrize("rate_hz", [4_000, 384_000])
def test_rates_out_of_bounds_are_unsupported(rate_hz: int) -> None:
    with pytest.raises(UnsupportedAudioLayout, match=f"{rate_hz} Hz"):
        decoded_s(recordings.encode("wav", recordings.sine(1.0, rate_hz), rate_hz))


def test_too_many_channels_are_unsupported() -> None:
    file = recordings.encode("wav", np.zeros((8_000, 40), np.float32), 16_000)

    with pytest.raises(UnsupportedAudioLayout, match="40 channels"):
        decoded_s(file)


@pytest.mark.parametrize("name", ["wav", "flac", "mp4", "ogg", "webm"])
def test_a_declared_length_over_the_limit_is_refused_at_once(name: str) -> None:
    file = recordings.encode(name, recordings.sine(4.0, 48_000), 48_000)

    with pytest.raises(AudioTooLong, match=r"at least 4\.0 s; the limit is 2 s"):
        AudioDecoder(file, AudioLimits(max_duration_s=2.0))


@pytest.mark.parametrize("name", ["mp3", "aac"])
def test_an_undeclared_length_over_the_limit_is_refused_while_decoding(name: str) -> None:
    file = recordings.encode(name, recordings.sine(20.0, 16_000), 16_000)

    num_samples: list[int] = []
    with (
        AudioDecoder(file, AudioLimits(max_duration_s=2.0, block_s=0.5)) as decoder,
        pytest.raises(AudioTooLong),
    ):
        num_samples.extend(len(block) for block in decoder.blocks())
    assert sum(num_samples) <= 2 * SAMPLE_RATE_HZ


def test_the_errors_cross_processes() -> None:
    with pytest.raises(TruncatedAudio) as raised:
        decoded_s(wav()[:44])

    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
