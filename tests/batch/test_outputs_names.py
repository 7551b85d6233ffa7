from __future__ import annotations

import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from serve_app.batch.output_paths import file_name, result_path, shard_of

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


@given(IDS)
@example("a//b")
@example("../../etc/passwd")
@example("/" * 300)
@example("录音/" * 200 + "a.wav")
def test_mirrored_path_stays_below_the_output(recording_id: str) -> None:
    path = result_path(recording_id, "mirror")
    top, *names = path.split("/")
    assert top == "transcripts"
    assert len(path.encode()) < 1000
    for name in names:
        assert name not in ("", ".", "..")
        assert len(name.encode()) <= 200


@given(st.lists(IDS, min_size=2, max_size=2, unique=True))
@example(["a", "a.json/b"])
@example(["a", "a.SRT/b"])
@example(["a//b", "a/%/b"])
@example(["a/b", "a%2Fb"])
def test_mirrored_files_of_two_ids_do_not_meet(ids: list[str]) -> None:
    one, other = (result_path(each, "mirror") for each in ids)
    assert one != other
    # A file of one is never a folder of the other.
    for suffix in ("json", "srt", "vtt", "txt"):
        assert not other.startswith(f"{one}.{suffix}/")


def test_mirrored_path_keeps_folders_and_name() -> None:
    assert result_path("会议/2024/7.wav", "mirror") == "transcripts/会议/2024/7.wav"
    assert result_path("会议/2024/7.wav", "hashed").endswith("/会议%2F2024%2F7.wav")
