"""Attacks: what they send, from where, and what the honest caller may feel."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

from loadtests.attack import files
from loadtests.attack.__main__ import COLUMNS, Felt, judge
from loadtests.attack.sender import NICENESS, Sent, attacks, sender
from loadtests.attack.wire import Target
from loadtests.harness.loops import Probe
from loadtests.harness.report import Report
from loadtests.ports import free_port
from tests.loadtests.conftest import kept


def felt(p95_s: float = 0.1, refused: int = 0, wrong: int = 0, died: int = 0) -> Felt:
    return Felt(Probe((p95_s,) * 5, refused, wrong), Sent({400: 3}, 0.1), died)


def test_attack_is_borne_if_the_honest_caller_hardly_feels_it(report: Report) -> None:
    table = report.table("attacks", COLUMNS)
    found = {"none": felt(), "json": felt(0.19)}
    for name in found:
        judge(report, name, found)
    assert kept(report) == [True, True]
    assert [row[-1] for row in table.rows] == ["held", "held"]


@pytest.mark.parametrize("one", [felt(0.21), felt(refused=1), felt(wrong=1), felt(died=1)])
def test_delay_refusal_wrong_answer_and_death_are_each_seen(one: Felt, report: Report) -> None:
    table = report.table("attacks", COLUMNS)
    judge(report, "json", {"none": felt(), "json": one})
    assert kept(report) == [False]
    assert table.rows[0][-1] == "NOT HELD"


def test_hostile_files_match_their_names() -> None:
    wav = files.wav_of_empty_chunks(8000)
    assert wav.count(b"junk") == 1000
    assert files.mkv_of_single_samples(50).startswith(b"\x1a\x45\xdf\xa3")
    assert files.flac_of_zeros(1.0).startswith(b"fLaC")
    assert len(list(files.odd_forms())) == 6
    assert any(body == b'{"\\ud800": {}}' for _, body in files.odd_json())
    assert all(isinstance(json.dumps(url), str) for url in files.tricky_urls())


def test_every_attack_can_be_made_ready() -> None:
    small = {name: made for name, made in attacks().items() if name not in ("mkv-blocks",)}
    assert all(callable(made()) for made in small.values())


async def test_attacker_is_a_separate_process_with_lower_priority() -> None:
    target = Target(f"http://127.0.0.1:{free_port()}", "key")
    with sender() as attacker:
        pid = await attacker.prepare("header-bombs")
        assert pid != os.getpid()
        assert os.getpriority(os.PRIO_PROCESS, pid) == NICENESS
        sent = await asyncio.wait_for(attacker.attack(target, 0.1), 60)
    assert sent.statuses[0] > 0
    assert sent.cpu_s > 0
    assert target.statuses == {}
