from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from serve_app.cli.output_files import FoundRecording, find_recordings, output_paths


def places(*named: tuple[str, str]) -> list[str]:
    recordings = [FoundRecording(Path(path), Path(place)) for path, place in named]
    return [str(place) for place in output_paths(recordings, ".srt").values()]


def test_folders_below_a_named_directory_are_kept() -> None:
    assert places(("in/a/x.wav", "a/x.wav"), ("in/b/x.wav", "b/x.wav")) == [
        "a/x.wav.srt",
        "b/x.wav.srt",
    ]


def test_same_names_keep_the_folders_that_tell_them_apart() -> None:
    assert places(("/d/one/x.wav", "x.wav"), ("/d/two/x.wav", "x.wav")) == [
        "one/x.wav.srt",
        "two/x.wav.srt",
    ]


NAMES = st.sampled_from(["x.wav", "X.wav", "x (2).wav"])


@given(st.lists(st.tuples(st.sampled_from("abAB"), NAMES), unique=True))
def test_no_two_recordings_share_a_place(named: list[tuple[str, str]]) -> None:
    recordings = [FoundRecording(Path("/d", folder, name), Path(name)) for folder, name in named]
    found = output_paths(recordings, ".txt")
    assert len({str(place).casefold() for place in found.values()}) == len(recordings)
    assert all(not place.is_absolute() and ".." not in place.parts for place in found.values())


def test_a_ts_file_of_a_directory_is_taken_if_it_holds_a_transport_stream(tmp_path: Path) -> None:
    (tmp_path / "page.ts").write_bytes(b"export const greeting: string = 'hello';\n" * 20)
    (tmp_path / "empty.ts").write_bytes(b"")
    (tmp_path / "show.ts").write_bytes((b"\x47" + bytes(187)) * 3)
    (tmp_path / "camera.ts").write_bytes((bytes(4) + b"\x47" + bytes(187)) * 3)

    found = find_recordings([str(tmp_path)])

    assert [one.path.name for one in found] == ["camera.ts", "show.ts"]


def test_a_ts_file_that_is_named_itself_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "page.ts"
    path.write_bytes(b"text")

    assert [one.path for one in find_recordings([str(path)])] == [path]
