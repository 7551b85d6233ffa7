from __future__ import annotations

import numpy as np
import pytest
import torch

from serve_app.engines import features

knf = pytest.importorskip("kaldi_native_fbank")


def kaldi_fbank(pcm: torch.Tensor, window: str = "hamming") -> torch.Tensor:
    options = knf.FbankOptions()
    options.frame_opts.window_type = window
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = 80
    options.energy_floor = 0.0
    fbank = knf.OnlineFbank(options)
    fbank.accept_waveform(16000, pcm.numpy())
    fbank.input_finished()
    rows = [fbank.get_frame(i) for i in range(fbank.num_frames_ready)]
    return torch.from_numpy(np.stack(rows)) if rows else torch.zeros(0, 80)


def noise(num_samples: int, scale: float, offset: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(num_samples)
    pcm = torch.randn(num_samples, generator=generator) * scale + offset
    return pcm.round().clamp(-32768, 32767)


@pytest.mark.parametrize("num_samples", [400, 559, 560, 16000, 256 * 160 + 400, 100_000])
@pytest.mark.parametrize(("scale", "offset"), [(3000.0, 0.0), (20.0, 0.0), (200.0, 4000.0)])
def test_log_mel_is_that_of_kaldi(num_samples: int, scale: float, offset: float) -> None:
    pcm = noise(num_samples, scale, offset)
    torch.testing.assert_close(features.log_mel(pcm), kaldi_fbank(pcm), atol=2e-3, rtol=0)


def test_log_mel_of_a_tone_is_that_of_kaldi() -> None:
    pcm = (torch.sin(torch.arange(48_000) * 0.2) * 12_000).round()
    torch.testing.assert_close(features.log_mel(pcm), kaldi_fbank(pcm), atol=2e-3, rtol=0)


@pytest.mark.parametrize("scale", [3000.0, 20.0])
def test_log_mel_with_kaldis_own_window_is_that_of_kaldi(scale: float) -> None:
    pcm = noise(24_000, scale) / 32_768
    expected = kaldi_fbank(pcm, window="povey")
    torch.testing.assert_close(features.log_mel(pcm, "povey"), expected, atol=2e-3, rtol=0)


def test_digital_silence_is_the_log_of_epsilon() -> None:
    mel = features.log_mel(torch.zeros(1600))
    torch.testing.assert_close(mel, kaldi_fbank(torch.zeros(1600)))
    assert torch.isfinite(mel).all()


@pytest.mark.parametrize("num_samples", [0, 1, 399])
def test_less_than_a_frame_gives_no_rows(num_samples: int) -> None:
    assert features.log_mel(torch.zeros(num_samples)).shape == (0, 80)


def test_result_does_not_depend_on_blocks() -> None:
    pcm = noise(160_000, 1000.0)
    whole = features.log_mel(pcm)
    part = features.log_mel(pcm[300 * 160 :])
    torch.testing.assert_close(whole[300:], part, atol=1e-4, rtol=0)


@pytest.mark.reference
@pytest.mark.parametrize(("m", "n"), [(7, 6), (5, 1), (1, 1), (4, 3)])
def test_lfr_is_that_of_funasr(m: int, n: int) -> None:
    from funasr.frontends.wav_frontend import apply_lfr

    for count in [*range(1, 40), 100, 101]:
        frames = noise(count * 3, 1.0).reshape(count, 3)
        torch.testing.assert_close(features.lfr(frames, m, n), apply_lfr(frames, m, n))


def test_lfr_of_nothing_is_nothing() -> None:
    assert features.lfr(torch.zeros(0, 80), 7, 6).shape == (0, 560)


def test_cmvn_shifts_before_it_scales() -> None:
    cmvn = torch.tensor([[1.0, -1.0], [2.0, 3.0]])
    assert features.apply_cmvn(torch.tensor([[1.0, 1.0]]), cmvn).tolist() == [[4.0, 0.0]]
