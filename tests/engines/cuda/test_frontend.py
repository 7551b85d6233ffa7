from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.core.records import Pcm
from serve_app.engines.cuda.frontend import Frontend
from serve_app.engines.cuda.sequence_layout import lay_out
from serve_app.engines.features import apply_cmvn, lfr, log_mel
from tests.fakes.signals import speech_like

M, N = 7, 6
NEUTRAL = torch.stack([torch.zeros(80 * M), torch.ones(80 * M)])


def _together(batch: list[Pcm], spare_rows: int, spare_sequences: int) -> list[torch.Tensor]:
    frontend = Frontend(NEUTRAL, M, N, torch.device("cpu"))
    rows = [frontend.num_rows(len(pcm)) for pcm in batch]
    num_samples = torch.zeros(len(batch) + spare_sequences, dtype=torch.int32)
    num_samples[: len(batch)] = torch.tensor([len(pcm) for pcm in batch])
    size = frontend.num_samples(sum(rows) + spare_rows, len(num_samples))
    samples = torch.full((size,), -32_768, dtype=torch.int16)
    at = 0
    for pcm, count in zip(batch, rows, strict=True):
        room = (count + 1) * frontend.slot_samples
        samples[at : at + min(room, len(pcm))] = torch.from_numpy(pcm[:room])
        at += room
    lengths = frontend.lengths(num_samples)
    assert lengths[: len(batch)].tolist() == rows
    sequence_layout = lay_out(lengths, sum(rows) + spare_rows, 512)
    features = frontend.forward(samples, num_samples, sequence_layout)
    return list(torch.split(features[: sum(rows)], rows))


def _alone(pcm: Pcm) -> torch.Tensor:
    return apply_cmvn(lfr(log_mel(torch.from_numpy(pcm.astype(np.float32))), M, N), NEUTRAL)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(400, 30_000), min_size=1, max_size=5),
    spare=st.tuples(st.integers(0, 100), st.integers(0, 5)),
)
def test_features_of_a_batch_are_those_of_each_alone(
    lengths: list[int], spare: tuple[int, int]
) -> None:
    batch = [speech_like(length, length) for length in lengths]
    for found, pcm in zip(_together(batch, *spare), batch, strict=True):
        expected = _alone(pcm)
        assert ((found - expected).abs() <= _rounding(expected)).all()


def _rounding(features: torch.Tensor) -> torch.Tensor:
    """What float32 may change of a log energy.

    A transform rounds all its bins by a share of the frame's norm; the narrow bands at the
    bottom may hold next to nothing of it, and the logarithm shows the rounding.
    """
    loudest = features.amax(dim=1, keepdim=True)
    return 1e-3 + 2e-6 * torch.exp((loudest - features) / 2)


def test_features_of_a_real_recording_are_the_same(vad_example: Path) -> None:
    samples, _ = soundfile.read(vad_example, dtype="int16")
    batch = [samples[start : start + 160_000] for start in range(0, 800_000, 160_000)]
    for found, pcm in zip(_together(batch, 10, 3), batch, strict=True):
        torch.testing.assert_close(found, _alone(pcm), atol=1e-3, rtol=0)


@pytest.mark.parametrize("num_samples", [0, 399, 400, 1359, 1360, 16_000])
def test_number_of_rows_is_the_same_on_host_and_device(num_samples: int) -> None:
    frontend = Frontend(NEUTRAL, M, N, torch.device("cpu"))
    found = frontend.lengths(torch.tensor([num_samples], dtype=torch.int32))
    assert found.tolist() == [frontend.num_rows(num_samples)]
