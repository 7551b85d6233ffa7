"""Attacks on the running service, at a small size; `python -m loadtests attack` has them whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.attack.__main__ import run_attacks
from loadtests.attack.wire import Target
from loadtests.load.clips import ClipLibrary
from serve_app.settings import Settings

SECONDS = 2.0
# Without keys all callers are one tenant, so attacks on its share are not among them.
SMALL = ("slow-headers", "header-bombs", "multipart", "json", "wav-chunks", "page-events")


@pytest.mark.ray
async def test_honest_caller_is_answered_right_beside_attacks(
    service_url: str, settings: Settings, tmp_path: Path
) -> None:
    target = Target(service_url, "", settings.ui.route_prefix)
    alone, felt = await run_attacks(target, "", ClipLibrary(tmp_path), SMALL, SECONDS)
    assert alone.latencies_s
    for name, one in felt.items():
        assert (one.num_wrong, one.num_refused, one.num_died) == (0, 0, 0), name
        assert one.latencies_s, name
        # Attackers are refused in our own form, and nothing of theirs is an error of ours.
        assert not any(status >= 500 for status in one.sent.statuses), (name, one.sent.statuses)
