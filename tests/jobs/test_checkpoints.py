"""Utterances as files: back as they were, or not at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from serve_app.core.errors import StorageFull
from serve_app.core.job_errors import StoreUnavailable
from serve_app.core.records import Token, Utterance
from serve_app.core.speakers import SpeakerWindows
from serve_app.jobs.checkpoints import Checkpoints, utterances_from_json, utterances_to_json
from tests.fakes.job_files import MemoryFiles

ID = "job_a"
MADE_BY = "pack"


def voices(index: int) -> SpeakerWindows:
    rng = np.random.default_rng(index)
    starts_ms = np.arange(3, dtype=np.int64) * 750 + index * 5000
    return SpeakerWindows(starts_ms, starts_ms + 1500, rng.normal(size=(3, 192)).astype(np.float32))


def utterance(index: int, **changes: object) -> Utterance:
    start_ms = index * 5000
    tokens = (
        Token("你", start_ms, start_ms + 180, 0.1 + 0.2, "draft"),
        Token("\ud800😀\u2028", start_ms + 200, start_ms + 230, 1 / 3),
    )
    made = Utterance(
        index,
        start_ms,
        start_ms + 4000,
        "done",
        tokens,
        language="zh",
        voices=voices(index),
        channel=index % 2,
        settled_ms=start_ms - 10,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def checkpoints(files: MemoryFiles, fence: int = 1, made_by: str = MADE_BY) -> Checkpoints:
    return Checkpoints(files, ID, fence, made_by, every_audio_s=10.0)


async def stored(files: MemoryFiles, *utterances: Utterance, fence: int = 1) -> None:
    written = checkpoints(files, fence)
    for one in utterances:
        written.add(one)
    await written.write()


def test_utterances_come_back_exactly() -> None:
    empty = Utterance(3, 15_000, 15_100, "empty")
    before = (utterance(0), utterance(1, voices=None, channel=None, language=None), empty)
    after = utterances_from_json(utterances_to_json(before, MADE_BY), MADE_BY)
    assert after == before
    assert [one.voices is None for one in after] == [False, True, True]
    windows, expected = after[0].voices, before[0].voices
    assert windows is not None
    assert expected is not None
    for name in ("start_ms", "end_ms", "embeddings"):
        found, wanted = getattr(windows, name), getattr(expected, name)
        assert found.dtype == wanted.dtype
        assert np.array_equal(found, wanted)


def test_any_damage_that_changes_something_is_noticed() -> None:
    before = (utterance(0), utterance(1))
    content = utterances_to_json(before, MADE_BY)
    num_noticed = 0
    for at in range(0, len(content), 41):
        damaged = bytearray(content)
        damaged[at] ^= 0x01
        try:
            # The last digit of a number may make no difference.
            assert utterances_from_json(bytes(damaged), MADE_BY) == before
        except ValueError:
            num_noticed += 1
    assert num_noticed > len(content) / 41 * 0.9


def test_part_of_a_file_is_noticed() -> None:
    content = utterances_to_json([utterance(0), utterance(1)], MADE_BY)
    for length in range(0, len(content), 41):
        with pytest.raises(ValueError, match=r"\w"):
            utterances_from_json(content[:length], MADE_BY)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"7", b"null", b"\xff\xfe", b'{"version":1}']
)
def test_what_is_no_checkpoint_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        utterances_from_json(content, MADE_BY)


async def test_files_of_all_earlier_attempts_are_read_in_order_of_the_recording() -> None:
    files = MemoryFiles()
    await stored(files, utterance(1), fence=1)
    await stored(files, utterance(3), utterance(0), fence=2)
    read = await checkpoints(files, fence=3).read()
    assert [one.index for one in read] == [0, 1, 3]


async def test_damaged_and_missing_files_cost_only_their_own_utterances() -> None:
    files = MemoryFiles()
    for fence in (1, 2, 3):
        await stored(files, utterance(fence), fence=fence)
    name = f"{ID}/utterances-2-00000.json"
    files.contents[name] = files.contents[name][:-20]
    assert [one.index for one in await checkpoints(files, 4).read()] == [1, 3]
    del files.contents[name]
    assert [one.index for one in await checkpoints(files, 4).read()] == [1, 3]


async def test_utterances_of_another_model_are_not_used() -> None:
    files = MemoryFiles()
    await stored(files, utterance(0))
    assert await checkpoints(files, 2, made_by="another pack").read() == ()


async def test_failed_utterances_are_not_stored() -> None:
    files = MemoryFiles()
    await stored(files, utterance(0, status="failed", tokens=(), error="poison: x"), utterance(1))
    assert [one.index for one in await checkpoints(files, 2).read()] == [1]


async def test_a_file_is_due_after_so_much_recognized_audio() -> None:
    written = checkpoints(MemoryFiles())
    assert written.add(utterance(0))
    written.add(utterance(1))
    assert not written.is_due
    written.add(utterance(2))
    assert written.is_due
    await written.write()
    assert not written.is_due


async def test_each_file_has_what_came_since_the_last_one() -> None:
    files = MemoryFiles()
    written = checkpoints(files, fence=7)
    for index in range(3):
        written.add(utterance(index))
        await written.write()
    await written.write()
    assert sorted(files.contents) == [f"{ID}/utterances-7-{n:05d}.json" for n in range(3)]
    for number, content in enumerate(files.contents.values()):
        assert [one.index for one in utterances_from_json(content, MADE_BY)] == [number]


async def test_what_is_stored_already_is_not_stored_again() -> None:
    files = MemoryFiles()
    await stored(files, utterance(0))
    again = checkpoints(files, fence=2)
    (known,) = await again.read()
    assert not again.add(known)
    assert again.add(replace(known, tokens=()))


@pytest.mark.parametrize("fault", [StoreUnavailable(), StorageFull(30.0)])
async def test_what_cannot_be_stored_is_kept_for_the_next_time(fault: Exception) -> None:
    files = MemoryFiles()
    written = checkpoints(files)
    written.add(utterance(0))
    files.fault = fault
    with pytest.raises(type(fault)):
        await written.write()
    files.fault = None
    written.add(utterance(1))
    await written.write()
    assert len(await checkpoints(files, 2).read()) == 2


async def test_only_checkpoints_are_deleted() -> None:
    files = MemoryFiles()
    await stored(files, utterance(0))
    for name in ("audio", "request.json", "result-1.json"):
        await files.put_bytes(f"{ID}/{name}", b"x")
    await checkpoints(files, 2).delete()
    assert sorted(files.contents) == [
        f"{ID}/{n}" for n in ("audio", "request.json", "result-1.json")
    ]
