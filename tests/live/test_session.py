"""A session against recognizers that follow a script: nothing is lost, and memory is bounded."""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc
from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.core.errors import ShuttingDown
from serve_app.core.live_errors import NothingToCommit, TooMuchAudio
from serve_app.core.records import (
    AS_DEPLOYED,
    Chunk,
    ChunkFailure,
    Pcm,
    Recognition,
    RecognitionOptions,
    RequestContext,
    SpeechDetection,
    SpeechSegment,
    Token,
)
from serve_app.live.records import (
    AudioFormat,
    FinalText,
    LiveEvent,
    PartialText,
    SegmentFailed,
    SessionOptions,
    SpeechStarted,
    SpeechStopped,
)
from serve_app.live.segmenting import Boundary
from serve_app.live.session import Session, SessionLimits, SessionModels
from serve_app.transcript.fanout import POISON
from serve_app.transcript.itn import TextRules
from tests.fakes.engines import FakeVad, FakeVadStream
from tests.live.models import (
    CONTEXT,
    ScriptedRecognizer,
    check_order,
    finals_of,
    new_session,
    rest_of,
    run_here,
    scripted_models,
    settle,
    silence,
    speech,
    words_of,
)

MANUAL = SessionOptions(detection=None)


async def push_all(session: Session, data: bytes, step_bytes: int = 640) -> None:
    for start in range(0, len(data), step_bytes):
        await session.wait_for_room()
        session.push(data[start : start + step_bytes])
        await settle()


async def read_into(events: list[LiveEvent], session: Session) -> None:
    """Also keeps the events before an error."""
    async for event in session.events():
        events.append(event)  # noqa: PERF401 - a comprehension would lose them


async def told(session: Session, data: bytes, step_bytes: int = 640) -> list[LiveEvent]:
    """Pushes all, finishes, and returns the events."""
    reading = asyncio.create_task(rest_of(session))
    await push_all(session, data, step_bytes)
    session.finish()
    events = await reading
    check_order(events)
    await session.close()
    return events


async def test_partials_grow_and_the_final_text_is_complete() -> None:
    session = new_session(scripted_models(ScriptedRecognizer()))
    events = await told(session, silence(3) + speech(30) + silence(5) + speech(4, 100) + silence(5))
    deltas = [event for event in events if isinstance(event, PartialText)]
    assert len([delta for delta in deltas if delta.segment == 0]) >= 3
    assert [final.text for final in finals_of(events)] == [words_of(30), words_of(4, 100)]
    assert [(final.start_ms, final.end_ms) for final in finals_of(events)] == [
        (300, 3300),
        (3800, 4200),
    ]
    assert finals_of(events)[0].language == "zh"
    first = finals_of(events)[0].sentences[0].tokens[0].token
    assert (first.start_ms, first.end_ms) == (300, 400)


async def test_the_events_of_one_segment_come_in_order() -> None:
    session = new_session(scripted_models(ScriptedRecognizer()))
    events = await told(session, speech(20) + silence(3))
    kinds = [type(event) for event in events]
    assert kinds[0] is SpeechStarted
    assert kinds[-3:] == [SpeechStopped, PartialText, FinalText]
    assert set(kinds[1:-3]) == {PartialText}


async def test_chunks_are_urgent_and_belong_to_the_session() -> None:
    chunks: list[Chunk] = []

    def say(chunk: Chunk) -> Recognition:
        chunks.append(chunk)
        return Recognition(())

    chosen = RecognitionOptions(model="other", language="zh")
    session = new_session(
        scripted_models(ScriptedRecognizer(say)), SessionOptions(recognition_options=chosen)
    )
    events = await told(session, silence(50) + speech(20) + silence(3))
    assert {chunk.start_ms for chunk in chunks} == {0}
    assert {chunk.context for chunk in chunks} == {CONTEXT}
    assert {chunk.recognition_options for chunk in chunks} == {chosen}
    assert finals_of(events)[0].text == ""


@pytest.mark.parametrize(
    "options",
    [
        SessionOptions(partials=False),
        SessionOptions(text_rules=TextRules(itn=True)),
    ],
)
async def test_without_partials_the_whole_text_comes_with_the_end(options: SessionOptions) -> None:
    recognizer = ScriptedRecognizer(lambda chunk: said("二十三"))
    session = new_session(scripted_models(recognizer), options)
    events = await told(session, speech(30) + silence(3))
    assert recognizer.num_calls == 1
    text = "23" if options.text_rules.itn else "二十三"
    assert [event.delta for event in events if isinstance(event, PartialText)] == [text]
    assert finals_of(events)[0].text == text


def said(words: str, step_ms: int = 100) -> Recognition:
    return Recognition(
        tuple(Token(word, i * step_ms, (i + 1) * step_ms, 0.9) for i, word in enumerate(words))
    )


async def test_marks_come_from_the_labels_of_the_segment() -> None:
    asked: list[str] = []

    async def label(context: RequestContext, words: Sequence[str]) -> list[str]:
        asked.append("".join(words))
        return ["，" if word == "好" else "" for word in words[:-1]] + ["。"]

    recognizer = ScriptedRecognizer(lambda chunk: said("你好世界人民"[: chunk.num_samples // 3200]))
    models = SessionModels(recognizer, label, FakeVad(), run_here)
    events = await told(new_session(models), speech(12) + silence(3))
    assert finals_of(events)[0].text == "你好，世界人民。"
    assert [one.text for one in finals_of(events)[0].sentences] == ["你好，世界人民。"]
    plain = new_session(models, SessionOptions(punctuate=False))
    asked.clear()
    assert finals_of(await told(plain, speech(12) + silence(3)))[0].text == "你好世界人民"
    assert asked == []


async def test_an_ended_segment_that_fails_is_reported_and_the_session_goes_on() -> None:
    failures: list[Exception | ChunkFailure | None] = [
        ConnectionError("gone"),
        ChunkFailure("engine_error", "ValueError"),
        ShuttingDown(),
        None,
    ]
    session = new_session(
        scripted_models(ScriptedRecognizer(failures=list(failures))), SessionOptions(partials=False)
    )
    events = await told(session, (speech(5) + silence(5)) * 4)
    failed = [event for event in events if isinstance(event, SegmentFailed)]
    assert [(one.segment, one.code) for one in failed] == [
        (0, "recognizer_error"),
        (1, "engine_error"),
        (2, "shutting_down"),
    ]
    assert failed[0].message == "gone"
    assert [(one.segment, one.text) for one in finals_of(events)] == [(3, words_of(5))]
    assert session.statistics().num_failed_segments == 3


async def test_a_partial_decode_that_fails_changes_nothing_in_the_end() -> None:
    recognizer = ScriptedRecognizer(failures=[ConnectionError("gone"), None, TimeoutError()])
    session = new_session(scripted_models(recognizer))
    events = await told(session, speech(40) + silence(3))
    assert finals_of(events)[0].text == words_of(40)
    assert session.statistics().num_failed_partials == 2


async def test_audio_that_kills_recognizers_is_not_sent_again() -> None:
    recognizer = ScriptedRecognizer(failures=[ChunkFailure(POISON, "2 recognizers died")])
    session = new_session(scripted_models(recognizer))
    events = await told(session, speech(40) + silence(3) + speech(4) + silence(3))
    failed = [event for event in events if isinstance(event, SegmentFailed)]
    assert [(one.segment, one.code) for one in failed] == [(0, POISON)]
    assert [one.segment for one in finals_of(events)] == [1]
    assert recognizer.num_calls == 2


async def test_partials_thin_out_while_the_recognizer_is_slow_and_finals_do_not() -> None:
    recognizer = ScriptedRecognizer()
    session = new_session(scripted_models(recognizer))
    reading = asyncio.create_task(rest_of(session))
    recognizer.gate.clear()
    await push_all(session, speech(100) + silence(3) + speech(30, 200) + silence(3))
    # One partial decode of the first segment; then its final and that of the second.
    assert recognizer.num_calls == 3
    assert session.statistics().num_thinned >= 10
    recognizer.gate.set()
    session.finish()
    events = await reading
    check_order(events)
    assert [one.text for one in finals_of(events)] == [words_of(100), words_of(30, 200)]


async def test_partials_take_at_most_half_of_the_time() -> None:
    now = 0.0

    class Slow(ScriptedRecognizer):
        async def __call__(self, chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
            nonlocal now
            now += 5.0
            return await super().__call__(chunks)

    recognizer = Slow()
    session = new_session(scripted_models(recognizer), clock=lambda: now)
    reading = asyncio.create_task(rest_of(session))
    await push_all(session, speech(60))
    assert recognizer.num_calls == 1
    assert session.statistics().num_thinned > 5
    now += 5.0
    await push_all(session, speech(10, 61))
    assert recognizer.num_calls == 2
    session.finish()
    assert finals_of(await reading)[0].text == words_of(70)


async def test_finals_are_in_order_whichever_decode_is_done_first() -> None:
    gates: dict[int, asyncio.Event] = {number: asyncio.Event() for number in range(3)}

    async def recognize(chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        await gates[chunks[0].index].wait()
        return [said(str(chunks[0].index))]

    models = SessionModels(recognize, None, FakeVad(), run_here)
    session = new_session(models, SessionOptions(partials=False))
    reading = asyncio.create_task(rest_of(session))
    await push_all(session, (speech(3) + silence(3)) * 3)
    session.finish()
    for number in (2, 0, 1):
        gates[number].set()
        await settle()
    events = await reading
    check_order(events)
    assert [one.text for one in finals_of(events)] == ["0", "1", "2"]


async def test_a_sender_that_is_too_fast_is_held_back_and_loses_nothing() -> None:
    recognizer = ScriptedRecognizer()
    recognizer.gate.clear()
    session = new_session(
        scripted_models(recognizer), limits=SessionLimits(max_lag_s=2, max_segment_s=2)
    )
    reading = asyncio.create_task(rest_of(session))
    taken_tenths = 0
    with pytest.raises(TooMuchAudio, match="2 s"):  # noqa: PT012 - the push that is one too many
        while taken_tenths < 1000:
            session.push(speech(1, taken_tenths + 1))
            taken_tenths += 1
            await settle()
    # One segment is being decoded, one is open, and two seconds wait.
    assert 40 <= taken_tenths <= 80
    waiting = asyncio.create_task(session.wait_for_room())
    await settle()
    assert not waiting.done()
    recognizer.gate.set()
    await waiting
    await push_all(session, speech(20, taken_tenths + 1))
    session.finish()
    events = await reading
    check_order(events)
    assert "".join(one.text for one in finals_of(events)) == words_of(taken_tenths + 20)


async def test_one_large_message_is_taken_whole() -> None:
    session = new_session(scripted_models(ScriptedRecognizer()), limits=SessionLimits(max_lag_s=1))
    reading = asyncio.create_task(rest_of(session))
    session.push((speech(20) + silence(5)) * 10)
    with pytest.raises(TooMuchAudio):
        session.push(b"\0\0")
    await session.wait_for_room()
    session.push(speech(3))
    session.finish()
    assert [one.text for one in finals_of(await reading)] == [words_of(20)] * 10 + [words_of(3)]


async def test_commit_needs_audio() -> None:
    session = new_session(scripted_models(ScriptedRecognizer()), MANUAL)
    with pytest.raises(NothingToCommit, match="only 0 ms"):
        session.commit()
    session.push(speech(1)[:-2])
    with pytest.raises(NothingToCommit, match="only 99 ms"):
        session.commit()
    session.push(speech(1))
    session.commit()
    with pytest.raises(NothingToCommit):
        session.commit()
    session.finish()
    assert len(finals_of(await rest_of(session))) == 1


async def test_commit_and_clear_apply_where_they_are_called() -> None:
    session = new_session(scripted_models(ScriptedRecognizer()), MANUAL)
    reading = asyncio.create_task(rest_of(session))
    # Nothing is awaited in between: the calls wait behind the audio that came before them.
    session.push(speech(7))
    session.commit()
    session.push(speech(5, 100))
    session.clear()
    session.push(speech(6, 200))
    session.commit()
    session.finish()
    events = await reading
    check_order(events)
    assert [one.text for one in finals_of(events)] == [words_of(7), "", words_of(6, 200)]


async def test_clear_keeps_what_was_told() -> None:
    session = new_session(scripted_models(ScriptedRecognizer()))
    reading = asyncio.create_task(rest_of(session))
    await push_all(session, speech(40))
    session.clear()
    await push_all(session, speech(10, 500) + silence(3))
    session.finish()
    events = await reading
    check_order(events)
    cleared, next_one = finals_of(events)
    assert cleared.text
    assert words_of(40).startswith(cleared.text)
    assert cleared.text != words_of(40)
    assert next_one.text == words_of(10, 500)


async def test_options_change_with_the_next_segment() -> None:
    names: list[str | None] = []

    def say(chunk: Chunk) -> Recognition:
        names.append(chunk.recognition_options.model)
        return said("一")

    session = new_session(scripted_models(ScriptedRecognizer(say)), SessionOptions(partials=False))
    reading = asyncio.create_task(rest_of(session))
    await push_all(session, speech(4))
    other = SessionOptions(recognition_options=RecognitionOptions(model="other"), partials=False)
    session.configure(other)
    await push_all(session, silence(3) + speech(4) + silence(3))
    session.finish()
    await reading
    assert names == [None, "other"]


async def test_a_failing_detector_ends_the_session() -> None:
    async def run(step: Callable[[], list[Boundary]], context: RequestContext) -> list[Boundary]:
        raise RuntimeError("no thread")

    models = SessionModels(ScriptedRecognizer(), None, FakeVad(), run)
    session = new_session(models)
    session.push(speech(5))
    with pytest.raises(RuntimeError, match="no thread"):
        await rest_of(session)
    session.push(speech(5))
    await session.wait_for_room()
    await session.close()


async def test_a_session_that_must_end_tells_all_texts_first() -> None:
    session = new_session(scripted_models(ScriptedRecognizer()))
    events: list[LiveEvent] = []
    reading = asyncio.create_task(read_into(events, session))
    await push_all(session, speech(12))
    session.end_with(ShuttingDown())
    session.push(speech(3, 50))
    with pytest.raises(ShuttingDown):
        await reading
    assert finals_of(events)[0].text == words_of(12)
    assert session.statistics().finished_ms == 1200


async def test_a_session_that_was_finished_ends_as_if_it_need_not() -> None:
    session = new_session(scripted_models(ScriptedRecognizer()))
    session.push(speech(12))
    session.finish()
    session.end_with(ShuttingDown())
    assert finals_of(await rest_of(session))[0].text == words_of(12)


async def test_an_aborted_session_says_where_to_go_on() -> None:
    recognizer = ScriptedRecognizer()
    session = new_session(scripted_models(recognizer), SessionOptions(partials=False))
    await push_all(session, speech(5) + silence(5))
    recognizer.gate.clear()
    await push_all(session, speech(5) + silence(5))
    session.abort(ShuttingDown())
    events: list[LiveEvent] = []
    with pytest.raises(ShuttingDown):
        await read_into(events, session)
    assert session.statistics().finished_ms == 1000
    assert len(finals_of(events)) == 1
    await session.close()


async def test_close_ends_all_work() -> None:
    recognizer = ScriptedRecognizer()
    recognizer.gate.clear()
    session = new_session(scripted_models(recognizer))
    await push_all(session, speech(20) + silence(3) + speech(20))
    await session.close()
    await session.close()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    session.push(speech(1))
    session.finish()
    assert isinstance((await rest_of(session))[0], SpeechStarted)


async def test_statistics_follow_the_session() -> None:
    recognizer = ScriptedRecognizer()
    session = new_session(scripted_models(recognizer), SessionOptions(partials=False))
    await push_all(session, silence(10) + speech(10))
    now = session.statistics()
    assert (now.received_ms, now.is_speaking, now.finished_ms) == (2000, True, 1000)
    recognizer.gate.clear()
    await push_all(session, silence(5))
    now = session.statistics()
    assert (now.is_speaking, now.finished_ms, now.num_segments) == (False, 1000, 0)
    recognizer.gate.set()
    await settle()
    now = session.statistics()
    assert now.finished_ms >= 2000
    assert now.num_segments == 1
    assert now.final_s == 0.0
    await session.close()


class Unsteady(ScriptedRecognizer):
    """Takes more or less long."""

    def __init__(self, chosen: random.Random) -> None:
        super().__init__()
        self.random = chosen

    async def __call__(self, chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        for _ in range(self.random.choice([0, 0, 5, 100, 1000])):
            await asyncio.sleep(0)
        return await super().__call__(chunks)


@pytest.mark.parametrize("seed", range(12))
async def test_random_pushes_and_commits_lose_and_double_no_word(seed: int) -> None:
    chosen = random.Random(seed)
    is_manual = seed % 2 == 1
    session = new_session(
        scripted_models(Unsteady(chosen)),
        MANUAL if is_manual else None,
        limits=SessionLimits(max_lag_s=5),
    )
    reading = asyncio.create_task(rest_of(session))
    expected, level = "", 1
    for _ in range(50):
        num = chosen.randint(1, 40)
        step_bytes = chosen.choice([333, 640, 3201, 50_000]) * 2
        await push_all(session, speech(num, level), step_bytes)
        expected += words_of(num, level)
        level = (level + num) % 4900 + 10
        if chosen.random() < 0.6 or is_manual:
            session.commit()
        else:
            await push_all(session, silence(chosen.randint(1, 5)), step_bytes)
    session.finish()
    events = await reading
    check_order(events)
    assert "".join(one.text for one in finals_of(events)) == expected


@pytest.mark.parametrize("max_segment_s", [2.0, 6.0, 20.0])
async def test_words_that_were_told_before_a_cut_are_not_told_again(max_segment_s: float) -> None:
    session = new_session(
        scripted_models(ScriptedRecognizer()),
        limits=SessionLimits(max_segment_s=max_segment_s, partial_interval_s=0.3),
    )
    events = await told(session, speech(500) + silence(3))
    assert len(finals_of(events)) >= 50 / max_segment_s
    assert "".join(one.text for one in finals_of(events)) == words_of(500)
    deltas = [event for event in events if isinstance(event, PartialText)]
    assert len(deltas) > len(finals_of(events))


@given(
    decodes=st.lists(st.text("一二三四五六七八九", max_size=12), min_size=1, max_size=12),
    final=st.text("一二三四五六七八九", max_size=12),
)
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_recognizer_that_changes_its_mind_never_takes_text_back(
    decodes: list[str], final: str
) -> None:
    left = [*decodes]

    def say(chunk: Chunk) -> Recognition:
        return said(left.pop(0) if len(left) > 1 else final, step_ms=50)

    async def run() -> None:
        session = new_session(
            scripted_models(ScriptedRecognizer(say)), limits=SessionLimits(partial_interval_s=0.2)
        )
        events = await told(session, speech(30) + silence(3), step_bytes=6400)
        assert session.statistics().num_retractions == 0
        assert len(finals_of(events)) == 1

    asyncio.run(run())


class _QuickStream(FakeVadStream):
    """Decides by whole pushes."""

    def push(self, pcm: Pcm) -> list[SpeechSegment]:
        found = []
        if self._since_ms is None and pcm.any():
            self._since_ms = self._now_ms
        elif self._since_ms is not None and not pcm.any():
            found.append(SpeechSegment(self._since_ms, self._now_ms))
            self._since_ms = None
        self._now_ms += len(pcm) // 16
        return found


class _QuickVad(FakeVad):
    def open(self, detection: SpeechDetection = AS_DEPLOYED) -> FakeVadStream:
        return _QuickStream()


@pytest.mark.timeout(400)
async def test_memory_is_flat_over_three_hours() -> None:
    """At accelerated clock: speech with pauses, and an hour without a pause."""
    now = 0.0
    recognizer = ScriptedRecognizer(lambda chunk: said("一二三四五六七八九" * 8))
    session = new_session(scripted_models(recognizer, _QuickVad()), clock=lambda: now)
    num_events = 0

    async def read() -> None:
        nonlocal num_events
        async for _ in session.events():
            num_events += 1

    reading = asyncio.create_task(read())
    loud, quiet = bytes([1, 1]) * 16_000, bytes(32_000)

    async def minutes(num: int, seconds: list[bytes]) -> None:
        nonlocal now
        for _ in range(num):
            for second in seconds:
                await session.wait_for_room()
                session.push(second)
                now += 1.0
                await settle()

    talk = ([loud] * 4 + [quiet]) * 12
    await minutes(5, talk)
    tracemalloc.start()
    try:
        await minutes(5, talk)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        await minutes(60, talk)
        await minutes(60, [loud] * 60)
        await minutes(50, talk)
        gc.collect()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    session.finish()
    await reading
    assert session.statistics().received_ms == 180 * 60_000
    assert recognizer.most_samples <= 20 * 16_000
    # At most the audio of one open segment more.
    assert after - before < 1_000_000
    # The open segment, its copies in chunks, and what waits.
    assert peak - before < 5_000_000
    assert num_events > 3_000


async def test_an_unread_session_does_not_grow() -> None:
    session = new_session(scripted_models(ScriptedRecognizer()))
    for _ in range(20):
        await push_all(session, (speech(20) + silence(5)) * 4, 32_000)
    # Only what cannot be left out: start, end, the whole text and the final of a segment.
    assert session.statistics().num_segments == 80
    session.finish()
    events = await rest_of(session)
    check_order(events)
    assert len(events) < 80 * 4 + 110


async def test_g711_is_a_session_like_any_other() -> None:
    session = new_session(
        scripted_models(ScriptedRecognizer(lambda chunk: said("一"))),
        audio=AudioFormat("mulaw", 8000),
    )
    loud, quiet = bytes([0x10]) * 800, bytes([0xFF]) * 800
    events = await told(session, quiet * 3 + loud * 8 + quiet * 5, 160)
    (final,) = finals_of(events)
    assert abs(final.start_ms - 300) <= 20
    assert abs(final.end_ms - 1100) <= 30
