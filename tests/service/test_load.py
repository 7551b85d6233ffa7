"""The generator against the real service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.load import COLUMNS, main

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("options", [[], ["--stream"]])
def test_every_request_of_a_short_run_is_answered_right(
    service_url: str, tmp_path: Path, options: list[str]
) -> None:
    command = ["--url", service_url, "--profile", "clips", "--rate", "3", "--duration", "4"]
    assert main([*command, "--out", str(tmp_path), *options]) == 0
    report = json.loads((tmp_path / "load.json").read_text())
    whole = dict(zip(COLUMNS, report["tables"][0]["rows"][0], strict=True))
    assert whole["right"] == whole["sent"] > 0
    assert 0 < float(whole["first byte p50"]) <= float(whole["complete p50"])
