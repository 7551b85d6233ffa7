"""The GPU comparison tried out on the CPU, where it measures nothing but itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from loadtests.gpu.__main__ import NO_DEVICE, main
from loadtests.gpu.options import Trial


def test_without_a_device_the_command_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["compare"]) == NO_DEVICE == 2
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(600)  # five processes import PyTorch, maybe on a busy machine
def test_command_writes_all_tables(tmp_path: Path) -> None:
    trial = ["--device", "cpu", "--seconds", "4", "--recording-seconds", "4", "--repeats", "1"]
    small = ["--max-batch-frames", "200", "--max-batch-words", "200", "--vad-processes", "1"]
    assert main(["compare", *trial, *small, "--no-peers", "--out", str(tmp_path)]) == 0
    assert {path.suffix for path in tmp_path.iterdir()} >= {".txt", ".md", ".json"}
    tables = json.loads((tmp_path / "gpu.json").read_text())["tables"]
    assert [len(table["rows"]) for table in tables] == [3, 3, 2]
    same = [row[5] for row in tables[1]["rows"]]
    assert len(set(same)) == 1, "every dtype hears the same segments of the demo"


def test_options_survive_the_way_to_a_child() -> None:
    options = Trial(pack="a", device="cpu", batch_sizes=(1, 2), batch_sizes_s=(60,), peers=False)
    assert Trial.from_json(options.to_json()) == options
