"""Channels kept apart or mixed: nothing is lost, nothing clicks, nothing cancels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from serve_app.audio import AudioDecoder, AudioLimits
from serve_app.audio.channel_counts import declared_channels
from serve_app.audio.channels import Downmix, SeparateChannels
from serve_app.core.errors import UnsupportedAudioLayout
from tests.audio import recordings

RATE_HZ = 16_000
Samples = npt.NDArray[np.float32]


def voice(seconds: float, seed: int = 0) -> Samples:
    """Noise whose loudness changes as that of speech."""
    times_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    noise = np.random.default_rng(seed).normal(0, 0.1, len(times_s))
    smooth = np.convolve(noise, np.ones(8) / 8, "same")
    return (smooth * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * times_s))).astype(np.float32)


def decoded(
    file: bytes, limits: AudioLimits | None = None
) -> tuple[npt.NDArray[np.int16], tuple[str, ...]]:
    limits = limits or AudioLimits(max_separate_channels=8)
    with AudioDecoder(file, limits, separate_channels=True) as decoder:
        blocks = list(decoder.steps())
        return np.concatenate(blocks, axis=1), decoder.notices


def downmixed(stereo: Samples, block_samples: int = 320) -> tuple[Samples, Downmix]:
    mix = Downmix()
    blocks = [
        mix.apply(stereo[:, start : start + block_samples], RATE_HZ)
        for start in range(0, stereo.shape[1], block_samples)
    ]
    return np.concatenate(blocks, axis=1)[0], mix


@pytest.mark.parametrize("name", ["wav", "rf64", "w64", "aiff", "flac", "caf", "au", "matroska"])
@pytest.mark.parametrize("num_channels", [1, 2, 6])
def test_each_channel_is_the_one_in_the_file(name: str, num_channels: int) -> None:
    channels = np.stack([voice(1.0, seed) for seed in range(num_channels)])

    pcm, notices = decoded(recordings.encode(name, channels.T, RATE_HZ))

    assert pcm.shape[0] == num_channels
    np.testing.assert_allclose(pcm, np.rint(channels * 32768), atol=1)
    assert not notices


@pytest.mark.parametrize("name", sorted(set(recordings.COMPRESSED) - {"amr"}))
def test_channels_of_compressed_files_stay_apart(name: str) -> None:
    rate_hz = recordings.COMPRESSED[name][2] or 44_100
    left = recordings.sine(2.0, rate_hz, pitch_hz=440.0)
    right = np.zeros_like(left)

    pcm, _ = decoded(recordings.encode(name, np.stack([left, right], axis=1), rate_hz))

    loudness = np.sqrt(np.square(pcm.astype(np.float64)).mean(axis=1))
    assert loudness[0] > 5000
    assert loudness[1] < 300


def test_a_separate_channel_equals_the_mono_file_of_its_samples() -> None:
    channels = np.stack([voice(2.0, 1), voice(2.0, 2)])
    both, _ = decoded(recordings.encode("wav", channels.T, 44_100))

    for separate, alone in zip(both, channels, strict=True):
        with AudioDecoder(recordings.encode("wav", alone, 44_100), AudioLimits()) as decoder:
            np.testing.assert_array_equal(separate, np.concatenate(list(decoder.blocks())))


def test_more_channels_than_the_limit_are_refused_with_the_limit() -> None:
    file = recordings.encode("wav", np.stack([voice(0.5)] * 3, axis=1), RATE_HZ)

    with pytest.raises(UnsupportedAudioLayout, match=r"at most 2 .*max_separate_channels.* has 3"):
        decoded(file, AudioLimits())
    with AudioDecoder(file, AudioLimits()) as decoder:
        assert decoder.num_channels == 1


def test_a_part_with_another_number_of_channels_is_mixed_into_the_first() -> None:
    limits = AudioLimits()
    channels = SeparateChannels(limits)
    channels.begin(2)
    stereo, mono = np.stack([voice(0.1), voice(0.1, 1)]), voice(0.1, 2)[None]

    channels.begin(1)
    np.testing.assert_array_equal(channels.apply(stereo, RATE_HZ), stereo)
    mapped = channels.apply(mono, RATE_HZ)

    np.testing.assert_array_equal(mapped[0], mono[0])
    assert not mapped[1].any()
    assert "number of channels changes" in channels.notices[0]


def test_files_joined_to_the_first_keep_its_channels() -> None:
    first = recordings.encode("ogg", np.stack([voice(1.0), voice(1.0, 1)], axis=1), 48_000)
    second = recordings.encode("ogg", voice(1.0, 2), 48_000)

    pcm, notices = decoded(first + second)

    assert pcm.shape[0] == 2
    assert any("number of channels changes" in notice for notice in notices)
    half = pcm.shape[1] // 2 + RATE_HZ // 20
    assert np.abs(pcm[0, half:]).mean() > 100
    assert np.abs(pcm[1, half:]).max() < 50


@pytest.mark.parametrize("right", [-1.0, -0.8, -1.2])
@pytest.mark.parametrize("block_samples", [160, 1024, 16_000])
def test_inverted_stereo_is_one_of_its_channels(right: float, block_samples: int) -> None:
    left = voice(3.0)

    mono, mix = downmixed(np.stack([left, np.float32(right) * left]), block_samples)

    expected = left if abs(right) <= 1 else np.float32(right) * left
    np.testing.assert_array_equal(mono, expected)
    assert mix.notices


def test_inverted_stereo_with_noise_does_not_change_its_sign() -> None:
    left = voice(10.0)
    noisy = [sign * left + 0.02 * voice(10.0, seed) for seed, sign in ((1, 1), (2, -1))]

    mono, _ = downmixed(np.stack(noisy).astype(np.float32))

    blocks = [
        float(np.dot(a, b))
        for a, b in zip(mono.reshape(-1, 1600), left.reshape(-1, 1600), strict=True)
    ]
    assert len({sign > 0 for sign in blocks}) == 1


def test_a_change_from_inverted_to_ordinary_stereo_makes_no_click() -> None:
    times_s = np.arange(4 * RATE_HZ) / RATE_HZ
    tone = (0.5 * np.sin(2 * np.pi * 200 * times_s)).astype(np.float32)
    right = np.where(times_s < 2.0, -tone, tone).astype(np.float32)

    mono, mix = downmixed(np.stack([tone, right]))

    steepest = np.abs(np.diff(tone)).max()
    assert np.abs(np.diff(mono)).max() < 1.2 * steepest
    assert mix.notices
    np.testing.assert_array_equal(mono[-RATE_HZ:], tone[-RATE_HZ:])


def test_unrelated_channels_are_mixed_whatever_their_loudness() -> None:
    stereo = np.stack([voice(3.0, 1), 0.1 * voice(3.0, 2)]).astype(np.float32)

    mono, mix = downmixed(stereo)

    np.testing.assert_allclose(mono, stereo.mean(axis=0), atol=1e-6)
    assert not mix.notices


def test_silence_before_inverted_speech_does_not_decide() -> None:
    left = np.concatenate([np.zeros(RATE_HZ, np.float32), voice(2.0)])

    mono, _ = downmixed(np.stack([left, -left]))

    begins = RATE_HZ + RATE_HZ // 100  # after the fade
    np.testing.assert_array_equal(mono[begins:], left[begins:])


@pytest.mark.parametrize("name", ["wav", "rf64", "w64", "aiff", "flac", "ogg", "mp3", "au", "caf"])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_the_header_tells_the_number_of_channels(name: str, num_channels: int) -> None:
    rate_hz = recordings.COMPRESSED.get(name, ("", "", 0))[2] or 16_000
    file = recordings.encode(name, recordings.sine(1.0, rate_hz, num_channels), rate_hz)

    assert declared_channels(file) == num_channels


def test_headers_of_further_codecs_tell_it() -> None:
    stereo = recordings.sine(1.0, 16_000, 2)
    assert declared_channels(recordings.mux("wav", "adpcm_ms", stereo, 16_000)) == 2
    assert declared_channels(recordings.mux("ogg", "flac", stereo, 16_000)) == 2
    assert declared_channels(recordings.silent_amr(50)) == 1


@pytest.mark.parametrize("content", [b"", b"nothing", b"fLaC", b"RIFF\0\0\0\0WAVE", b"OggS" * 9])
def test_a_header_that_says_nothing_is_unknown(content: bytes) -> None:
    assert declared_channels(content) is None
