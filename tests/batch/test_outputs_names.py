from __future__ import annotations

import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from serve_app.batch.outputs import file_name, shard_of

IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=400)


@given(IDS)
@example(".part-0123")
@example("..")
@example("a/../../etc/passwd")
@example("录音" * 100)
def test_name_is_safe_on_any_file_system(recording_id: str) -> None:
    name = file_name(recording_id)
    assert 1 <= len(name.encode()) <= 200
    assert not set(name) & set('/\\:*?"<>|\0\n')
    assert not name.startswith(".")
    assert not name.endswith((".", " "))
    assert unicodedata.normalize("NFC", name) == name
    assert len(shard_of(recording_id)) == 2


@given(IDS, IDS)
@example("a%2Fb", "a/b")
@example("x" * 300, "x" * 301)
@example("é", "é")
def test_names_of_two_ids_differ(one: str, other: str) -> None:
    assert (file_name(one) == file_name(other)) == (one == other)


def test_ordinary_name_stays_readable() -> None:
    assert file_name("会议 2024-05.wav") == "会议 2024-05.wav"
    assert file_name("calls/7.wav") == "calls%2F7.wav"
