from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.gpu.options import Trial
from loadtests.gpu.recognizer import compare_recognizers
from tests.fakes.hotwords import TINY_SEACO
from tests.fakes.signals import speech_like
from tests.fakes.tiny_packs import write_paraformer

pytestmark = pytest.mark.slow


def test_pack_with_a_bias_encoder_has_a_row_with_hotwords(tmp_path: Path) -> None:
    trial = Trial(
        pack=f"dir:{write_paraformer(tmp_path / 'tiny', TINY_SEACO)}",
        punctuation_pack="",
        vad_pack="",
        audio="demo",
        seconds=1.0,
        recording_s=1.0,
        repeats=1,
        device="cpu",
        max_batch_frames=500,
        max_batch_words=100,
        vad_processes=1,
        batch_sizes=(1,),
        batch_sizes_s=(1,),
        peers=False,
    )
    table, _ = compare_recognizers(trial, [speech_like(40_000, seed) for seed in range(3)])
    assert [str(row[0]) for row in table.rows][-1] == "Paraserve, bfloat16, hotwords"
    assert table.rows[-1][5] != "3/3", "the words bend what is heard"
