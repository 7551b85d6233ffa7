"""Attacks on the running service, at a small size; `python -m loadtests attack` has them whole."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from loadtests.attack.__main__ import run_attacks
from loadtests.attack.wire import Target
from loadtests.harness.clips import ClipLibrary
from loadtests.harness.report import Report
from serve_app.settings import Settings

SECONDS = 2.0
# Without keys all callers are one tenant, so attacks on its share are not among them.
SMALL = ("slow-headers", "header-bombs", "multipart", "json", "wav-chunks", "page-events")


@pytest.mark.ray
async def test_honest_caller_is_answered_right_beside_attacks(
    service_url: str, settings: Settings, tmp_path: Path
) -> None:
    target = Target(service_url, "", settings.ui.route_prefix)
    clip = ClipLibrary(tmp_path).content(3.0)
    options = argparse.Namespace(out=tmp_path, command_line=["attack"])
    with Report("attack", options) as report:
        felt = await run_attacks(report, target, "", clip, SMALL, SECONDS)
    assert set(felt) == {"none", *SMALL}
    for name, one in felt.items():
        assert (one.clips.num_other, one.clips.num_refused, one.num_died) == (0, 0, 0), name
        assert one.clips.latencies_s, name
        # Attackers are refused in our own form, and nothing of theirs is an error of ours.
        assert not any(status >= 500 for status in one.sent.statuses), (name, one.sent.statuses)
