from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from serve_app.core.errors import ConfigurationError
from serve_app.modeltools.memory_bench import (
    BenchPacks,
    MeasuredRow,
    PackChoice,
    measure_rows,
    rows_of,
)
from serve_app.modeltools.memory_bench.rows import choose_rows, roles_of
from serve_app.packs import PackContents
from tests.fakes.small_campplus import write_small_campplus
from tests.fakes.tiny_packs import write_paraformer

pytestmark = pytest.mark.slow


@pytest.fixture
def packs(tmp_path: Path, vad_pack: PackContents) -> BenchPacks:
    tiny = PackChoice(f"dir:{write_paraformer(tmp_path / 'tiny')}", "tiny", is_random=True)
    demo = PackChoice("ct-punc-demo", "ct-punc-demo")
    vad = PackChoice(f"dir:{vad_pack.directory}", "fsmn-vad")
    write_small_campplus(tmp_path / "voices")
    voices = PackChoice(f"dir:{tmp_path / 'voices'}", "voices", is_random=True)
    return BenchPacks(vad, tiny, demo, tiny, demo, voices)


def measure(
    packs: BenchPacks, tmp_path: Path, *keys: str, device: str = "cpu"
) -> list[MeasuredRow]:
    rows = choose_rows(rows_of(packs, device), keys)
    return list(measure_rows(rows, device=device, num_threads=1, seconds=3.0, pack_dir=tmp_path))


def test_rows_are_measured_in_processes_of_their_own(packs: BenchPacks, tmp_path: Path) -> None:
    imports, full = measure(packs, tmp_path, "imports", "full")
    assert imports.problem is None
    assert full.problem is None
    assert imports.rtfx is None
    assert full.rtfx is not None
    assert full.rtfx > 1
    assert full.packs == ("fsmn-vad", "tiny", "ct-punc-demo")
    assert full.is_random
    assert full.gpu_bytes is None
    assert full.weights_bytes > 0
    for row in (imports, full):
        assert 50e6 < row.pss_bytes <= row.rss_bytes <= row.peak_bytes
        assert row.rss_bytes < 3e9
    assert full.load_s > imports.load_s


def test_speaker_labels_are_measured_alone_and_behind_the_other_stages(
    packs: BenchPacks, tmp_path: Path
) -> None:
    alone, behind = measure(packs, tmp_path, "speakers", "full+speakers")
    assert alone.problem is None
    assert behind.problem is None
    assert alone.packs == ("voices",)
    assert behind.packs == ("fsmn-vad", "tiny", "ct-punc-demo", "voices")
    assert 0 < alone.weights_bytes < behind.weights_bytes
    assert alone.rtfx is not None


def test_failed_row_gives_the_reason_and_others_continue(packs: BenchPacks, tmp_path: Path) -> None:
    broken = BenchPacks(
        packs.vad, PackChoice(f"dir:{tmp_path}/none", "none"), packs.punctuation, packs.asr
    )
    asr, punctuation = measure(broken, tmp_path, "asr", "punctuation")
    assert asr.problem is not None
    assert "not a directory" in asr.problem
    assert punctuation.problem is None


def test_rows_with_int8_are_for_the_cpu_only(packs: BenchPacks) -> None:
    keys = {row.key for row in rows_of(packs, "cpu")}
    assert keys - {row.key for row in rows_of(packs, "cuda")} == {"int8", "int8-asr"}


def test_row_for_onnx_needs_an_exported_pack(packs: BenchPacks) -> None:
    assert "onnx" not in {row.key for row in rows_of(packs, "cpu")}


def test_unknown_row_is_refused(packs: BenchPacks) -> None:
    with pytest.raises(ConfigurationError, match="tiny"):
        choose_rows(rows_of(packs, "cpu"), ["tiny"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_memory_of_the_gpu_is_counted(packs: BenchPacks, tmp_path: Path) -> None:
    (row,) = measure(packs, tmp_path, "asr", device="cuda")
    assert row.problem is None
    assert row.gpu_bytes is not None
    assert row.gpu_bytes > 1e6


def test_row_needs_only_the_packs_that_it_loads() -> None:
    assert roles_of(["int8-asr"], "cpu") == {"asr"}
    assert roles_of(["speakers"], "cpu") == {"speakers"}
    assert roles_of(["onnx-asr"], "cpu") == {"onnx"}
    assert roles_of(["imports"], "cpu") == set()
    assert roles_of([], "cpu") == {each.name for each in fields(BenchPacks)}
