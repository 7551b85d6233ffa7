from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.gpu.options import Trial
from loadtests.gpu.recognizer import compare_recognizers, quickest
from loadtests.harness.report import Report
from tests.fakes.hotwords import TINY_SEACO
from tests.fakes.signals import speech_like
from tests.fakes.tiny_packs import write_paraformer

pytestmark = pytest.mark.slow


def test_pack_with_a_bias_encoder_has_a_row_with_hotwords(tmp_path: Path, report: Report) -> None:
    trial = Trial(
        pack=f"dir:{write_paraformer(tmp_path / 'tiny', TINY_SEACO)}",
        repeats=1,
        device="cpu",
        max_batch_frames=500,
        peers=False,
    )
    compare_recognizers(trial, [speech_like(40_000, seed) for seed in range(3)], report)
    last = report.tables[-1].rows[-1]
    assert last[0] == "Paraserve, bfloat16, hotwords"
    assert last[5] != "3/3", "the words bend what is heard"


def test_size_that_fails_is_told_and_passed_over(report: Report) -> None:
    def fail() -> str:
        raise RuntimeError("out of memory")

    report.table("Sizes", ("size",))
    works = {1: (lambda: None, lambda: "text"), 64: (lambda: None, fail)}
    assert quickest("batches of", works, report) == (1, "text")
    assert report.tables[-1].notes[-1] == "batches of 64 failed: RuntimeError('out of memory')"
    assert quickest("batches of", {64: (fail, fail)}, report) is None
