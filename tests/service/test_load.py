"""The generator against the real service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.load.__main__ import main

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("options", [[], ["--stream"]])
def test_every_request_of_a_short_run_is_answered_right(
    service_url: str, tmp_path: Path, options: list[str]
) -> None:
    command = ["--url", service_url, "--profile", "clips", "--rate", "3", "--duration", "4"]
    assert main([*command, "--output", str(tmp_path), *options]) == 0
    report = json.loads((tmp_path / "load.json").read_text())
    whole = report["classes"][0]
    assert whole["num_right"] == whole["num_sent"] > 0
    assert 0 < whole["first_byte_s"]["p50"] <= whole["complete_s"]["p50"]
