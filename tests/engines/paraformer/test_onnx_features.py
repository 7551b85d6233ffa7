from __future__ import annotations

import numpy as np
import pytest
import torch

from serve_app.engines.features import lfr, log_mel, mel_filters
from serve_app.engines.framing import stacking
from serve_app.engines.paraformer.onnx import power_spectra
from tests.fakes.signals import speech_like


@pytest.mark.parametrize("num_samples", [0, 399, 400, 41_360, 41_400, 60_001])
def test_spectra_give_the_mel_energies_of_the_pytorch_engine(num_samples: int) -> None:
    pcm = speech_like(num_samples, 1)
    expected = log_mel(torch.from_numpy(pcm.astype(np.float32))).numpy()
    filters = mel_filters(torch.device("cpu")).numpy()
    energies = np.maximum(power_spectra(pcm) @ filters, np.finfo(np.float32).eps)
    assert np.allclose(np.log(energies), expected, atol=2e-3)


@pytest.mark.parametrize("count", [1, 5, 6, 7, 100, 101])
def test_stacking_is_that_of_the_pytorch_engine(count: int) -> None:
    rows = torch.arange(count, dtype=torch.float32)[:, None]
    assert (stacking(count, 7, 6) == lfr(rows, 7, 6).numpy()).all()


def test_no_frames_stack_to_none() -> None:
    assert stacking(0, 7, 6).shape == (0, 7)


def test_spectra_are_float32() -> None:
    assert power_spectra(speech_like(16_000, 1)).dtype == np.float32
