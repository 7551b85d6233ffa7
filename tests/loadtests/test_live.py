"""The load tests of live transcription, played with a server that has a script."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from threading import Event, Thread
from typing import cast

import pytest

from loadtests.harness.report import Report
from loadtests.live import kills, speakers
from loadtests.live.__main__ import main
from loadtests.live.alignment import Differences, differences
from loadtests.live.capacity import most_sessions
from loadtests.live.results import LiveResult, add_result, add_table, promise_text
from loadtests.live.speakers import SpeakerResult, run_speakers
from loadtests.live.talks import Talk, TalkLibrary
from loadtests.outages import SupervisedService
from tests.fakes.live_service import ScriptedLiveService, ScriptedSegment
from tests.loadtests.conftest import kept

SPOKEN = "各位同事下午好，我们现在开始说明预算。"
TALK = Talk(bytes(32_000), SPOKEN)
SEGMENTS = (ScriptedSegment(100, 400, SPOKEN[:8]), ScriptedSegment(500, 800, SPOKEN[8:]))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speakers, "_SPREAD_S", 0.1)


async def speak(scripted: ScriptedLiveService, number: int = 1) -> LiveResult:
    async with scripted.running():
        return LiveResult(await run_speakers(scripted.url, [TALK] * number))


@pytest.mark.parametrize(
    ("recognized", "found"),
    [
        ("各位同事下午好我们现在开始说明预算", Differences(17)),
        ("各位同事，我们现在开始说明预算。", Differences(17, num_lost=3)),
        ("各位同事下午好，下午好，我们现在开始说明预算。", Differences(17, num_doubled=3)),
        ("各位各位同事下午好我们现在开始说明预算", Differences(17, num_doubled=2)),
        ("各位同事下午好我们现在开始说明预算预算", Differences(17, num_doubled=2)),
        ("各位同志下午好我们现在开始说明预算", Differences(17, num_changed=1)),
        ("各位同事下午好吗我们现在开始说明预算", Differences(17, num_added=1)),
        ("", Differences(17, num_lost=17)),
    ],
)
def test_lost_and_doubled_words_are_told_apart(recognized: str, found: Differences) -> None:
    assert differences(SPOKEN, recognized) == found


@pytest.mark.parametrize("capacity", [0, 1, 2, 3, 5, 8, 13, 64])
def test_most_sessions_are_found_in_few_steps(capacity: int) -> None:
    tried: list[int] = []

    def has_capacity(number: int) -> bool:
        tried.append(number)
        return number <= capacity

    assert most_sessions(has_capacity, 64) == capacity
    assert len(tried) <= 12
    assert len(set(tried)) == len(tried)


def test_talks_are_whole_sentences_from_different_beginnings() -> None:
    library = TalkLibrary()
    first, second = library.talks(2, 12.0)
    assert first.text.startswith(SPOKEN)
    assert second.text.startswith("高工程师")
    assert first.audio_s <= 12.0
    # The last sentence is followed by the first.
    assert SPOKEN in library.talk(12, 20.0).text
    assert library.talk(0, 0.1).text == SPOKEN


async def test_sessions_are_measured_at_real_time_pace() -> None:
    result = await speak(ScriptedLiveService(SEGMENTS), 3)
    assert result.text == Differences(3 * 17)
    assert (result.problems, result.num_failed, result.num_retracted) == ([], 0, 0)
    assert len(result.lags_s) == 6
    # Told when half of a segment has been spoken, never before.
    assert all(each >= 0.15 for one in result.sessions for each in one.first_partials_s)
    assert result.has_capacity(max_lag_s=60.0) == ((result.finals.p95 or 9) <= 1.0)


async def test_early_end_and_failed_segment_are_counted(report: Report) -> None:
    scripted = ScriptedLiveService(
        (SEGMENTS[0], ScriptedSegment(500, 800, SPOKEN[8:], "timeout")), going_away_ms=900
    )
    result = await speak(scripted, 2)
    add_table(report, "Sessions")
    add_result(report, result)
    promise_text(report, result)
    assert report.tables[-1].rows[0][:3] == (2, 2, 2)
    assert kept(report) == [False, False, True]
    assert not result.has_capacity(60.0)
    assert "2 x shutting_down at 0.9 s: going away" in report.tables[-1].notes


def test_retraction_breaks_a_promise(report: Report) -> None:
    add_table(report, "Sessions")
    promise_text(report, LiveResult([SpeakerResult(SPOKEN, [SPOKEN], num_retracted=1)]))
    assert kept(report) == [True, True, False]


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a server that says the sentence of every speaker right; runs in another thread."""
    monkeypatch.setattr(TalkLibrary, "talk", lambda self, number, audio_s: TALK)
    scripted, is_up, is_over = ScriptedLiveService(SEGMENTS), Event(), Event()

    async def run() -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(scripted.running())
            is_up.set()
            await asyncio.to_thread(is_over.wait)

    thread = Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert is_up.wait(30)
    yield scripted.url
    is_over.set()
    thread.join()


@pytest.mark.parametrize(
    ("command", "num_rows"),
    [(("capacity", "--most", "2"), 2), (("steady", "--sessions", "2"), 1)],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_run_against_a_service_reports(
    url: str, command: tuple[str, ...], num_rows: int, tmp_path: Path
) -> None:
    options = ("--seconds", "1", "--url", url, "--out", str(tmp_path))
    code = main([*command, *options])
    report = json.loads((tmp_path / f"live-{command[0]}.json").read_text())
    assert report["complete"]
    assert len(report["tables"][0]["rows"]) <= num_rows
    if command[0] == "steady":
        assert code == 0


class FakeSupervised:
    """Has a recognizer that notes its deaths."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.num_killed = 0

    def victims(self, kind: str) -> list[FakeSupervised]:
        assert kind == "recognizer"
        return [self]

    def send_signal(self, number: int) -> None:
        self.num_killed += 1


async def test_recognizers_are_killed_while_sessions_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TalkLibrary, "talks", lambda self, number, audio_s: [TALK] * number)
    options = argparse.Namespace(sessions=2, seconds=1.0, every=0.2)
    async with ScriptedLiveService(SEGMENTS).running() as scripted:
        fake = FakeSupervised(scripted.url)
        supervised = cast(SupervisedService, fake)
        num_killed, result = await kills.speak_through_kills(supervised, options)
    assert num_killed == fake.num_killed > 0
    assert result.text == Differences(2 * 17)
