from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve_app.batch.pending import Work
from serve_app.batch.ray_data import plan_blocks
from serve_app.batch.records import BatchItem

MIB = 2**20


def work(number: int, size_bytes: int | None) -> Work:
    return Work(BatchItem(str(number), f"/{number}"), "", frozenset({"asr"}), size_bytes)


def works(sizes: list[int | None]) -> list[Work]:
    return [work(number, size) for number, size in enumerate(sizes)]


@given(st.lists(st.one_of(st.none(), st.integers(0, 400 * MIB)), max_size=80))
def test_each_recording_is_in_one_block(sizes: list[int | None]) -> None:
    blocks = plan_blocks(works(sizes))
    assert sorted(number for block in blocks for number in block) == list(range(len(sizes)))


def test_long_recordings_come_early_and_alone_with_short_ones_between() -> None:
    sizes: list[int | None] = [*[1000] * 40, 50 * MIB, 300 * MIB]
    blocks = plan_blocks(works(sizes))
    assert blocks[0] == [41]
    assert blocks[2] == [40]
    assert max(blocks[1]) < 40
    assert all(len(block) == 8 for block in blocks[3:])


def test_block_of_short_recordings_is_no_longer_than_a_long_one() -> None:
    sizes: list[int | None] = [3 * MIB] * 4
    assert plan_blocks(works(sizes)) == [[0], [1], [2], [3]]


def test_recordings_of_unknown_size_count_as_short() -> None:
    assert plan_blocks(works([None] * 10)) == [list(range(8)), [8, 9]]
