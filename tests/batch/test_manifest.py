from __future__ import annotations

import csv
import io
import json
import os
import tracemalloc
import uuid
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.batch.fingerprint import file_info
from serve_app.batch.manifest import read_items
from serve_app.batch.records import BatchItem
from serve_app.core.errors import ManifestError


def written(directory: Path, content: bytes | str, name: str = "list.jsonl") -> str:
    path = directory / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def items(directory: Path, content: bytes | str, name: str = "list.jsonl") -> list[BatchItem]:
    return list(read_items(written(directory, content, name)))


def problem(directory: Path, content: bytes | str, name: str = "list.jsonl") -> str:
    with pytest.raises(ManifestError) as caught:
        read_items(written(directory, content, name))
    return str(caught.value)


def test_jsonl_gives_every_field(tmp_path: Path) -> None:
    row = {
        "id": 7, "uri": "s/a.wav", "language": "zh", "stages": ["asr", "vad"],
        "reference": "你好", "metadata": {"n": 1}, "speaker": "甲",
    }  # fmt: skip
    content = f"\n{json.dumps(row)}\n  \n"
    (item,) = items(tmp_path, content)
    assert item == BatchItem(
        "7", f"{tmp_path}/s/a.wav", "zh", ("vad", "asr"), "你好", {"speaker": "甲", "n": 1}
    )


def test_csv_gives_every_field(tmp_path: Path) -> None:
    content = (
        "\ufeffID, Path ,stages,text,speaker\r\n\r\n"
        '1, a.wav ,"vad,asr","说, ""好""\n了",甲\r\n,,,,\r\n'
    )
    (item,) = items(tmp_path, content, "list.csv")
    assert item == BatchItem(
        "1", f"{tmp_path}/a.wav", None, ("vad", "asr"), '说, "好"\n了', {"speaker": "甲"}
    )


@pytest.mark.parametrize("name", ["zh-CN", "zh_cn", "ZH"])
def test_language_is_named_as_in_the_http_api(tmp_path: Path, name: str) -> None:
    (item,) = items(tmp_path, json.dumps({"uri": "a.wav", "language": name}))
    assert item.language == "zh"


def test_language_without_a_code_is_left_for_the_job_to_refuse(tmp_path: Path) -> None:
    (item,) = items(tmp_path, '{"uri": "a.wav", "language": "-"}')
    assert item.language == "-"


def test_tabs_separate_the_columns_of_tsv(tmp_path: Path) -> None:
    (item,) = items(tmp_path, "audio\tnote\na.wav\tx, y\n", "list.tsv")
    assert (item.id, item.metadata) == ("a.wav", {"note": "x, y"})


def test_cell_that_looks_like_a_formula_stays_text(tmp_path: Path) -> None:
    (item,) = items(tmp_path, 'uri,note\na.wav,"=1+1"\n', "list.csv")
    assert item.metadata == {"note": "=1+1"}


def test_id_is_the_path_from_the_manifest_on(tmp_path: Path) -> None:
    uris = ["b/../a.wav", f"{tmp_path}/c.wav", "/else/d.wav", "https://u:p@h/e.wav?sig=1"]
    content = "".join(json.dumps({"uri": uri}) + "\n" for uri in uris)
    assert [item.id for item in items(tmp_path, content)] == [
        "a.wav", "c.wav", "else/d.wav", "h/e.wav",
    ]  # fmt: skip


def test_every_unusable_row_is_named_by_its_line(tmp_path: Path) -> None:
    rows = [
        '{"uri": "a.wav"}', "{", "[]", "{}", '{"uri": "a.wav", "path": "b.wav"}',
        '{"uri": "b.wav", "stages": "vad"}', '{"uri": "b.wav", "stages": "asr,sing"}',
        '{"uri": "a.wav"}', '{"uri": "c.wav", "id": "x\\ny"}', '{"uri": "nope://d.wav"}',
        '{"uri": "e.wav", "x": NaN}', '{"uri": "f.wav", "x": "\\ud800"}', '{"uri": 3}',
    ]  # fmt: skip
    message = problem(tmp_path, "\n".join(rows))
    lines = [line.strip().split(":")[0] for line in message.splitlines()[1:]]
    assert lines == [f"line {number}" for number in range(2, 14)]
    assert "that of line 1 already" in message


def test_long_lists_of_problems_are_cut(tmp_path: Path) -> None:
    message = problem(tmp_path, "{\n" * 1000)
    assert len(message.splitlines()) == 22
    assert message.endswith("and 980 more")


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_gbk_is_a_clear_error(tmp_path: Path, name: str) -> None:
    content = "uri,text\na.wav,你好\n" if name == "list.csv" else '{"uri": "a"}\n{"uri": "你"}\n'
    message = problem(tmp_path, content.encode("gbk"), name)
    assert "line 2: is not UTF-8 (GBK, perhaps" in message


def test_utf_16_is_a_clear_error(tmp_path: Path) -> None:
    assert "UTF-16" in problem(tmp_path, "uri\na.wav\n".encode("utf-16"), "list.csv")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("name\nx\n", "must name the columns"),
        ("uri,uri\na,b\n", "names the column 'uri' twice"),
        ("uri,id\na\n", "line 2: has 1 fields, the header 2"),
        ('uri\n"a.wav\n', "is not CSV"),
        ("uri\n\n", "no recordings in it"),
        ("", "no recordings in it"),
    ],
)
def test_csv_that_cannot_be_used_says_why(tmp_path: Path, content: str, expected: str) -> None:
    assert expected in problem(tmp_path, content, "list.csv")


def test_secrets_are_not_in_the_message(tmp_path: Path) -> None:
    message = problem(tmp_path, '{"uri": "nope://key:pa55word@b/x?sig=hidden", "id": "1"}')
    assert "pa55word" not in message
    assert "hidden" not in message


def test_directory_gives_its_recordings(tmp_path: Path) -> None:
    for name in ("b.wav", "a/c.MP3", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1234")
    found = list(read_items(str(tmp_path)))
    assert [(item.id, item.uri) for item in found] == [
        ("a/c.MP3", f"{tmp_path}/a/c.MP3"),
        ("b.wav", f"{tmp_path}/b.wav"),
    ]
    assert all(item.file is not None and item.file.size_bytes == 4 for item in found)


def test_listing_and_store_agree_on_a_file(tmp_path: Path) -> None:
    (tmp_path / "b.wav").write_bytes(b"1234")
    (item,) = read_items(str(tmp_path))
    assert item.file == file_info(BatchItem(item.id, item.uri))


def test_glob_counts_ids_from_its_first_wildcard(tmp_path: Path) -> None:
    for name in ("x/1/a.bin", "x/2/a.bin"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"1")
    assert [item.id for item in read_items(f"{tmp_path}/x/*/a.bin")] == ["1/a.bin", "2/a.bin"]


def test_prefix_of_a_bucket_need_not_end_at_a_slash() -> None:
    bucket = f"memory:///{uuid.uuid4().hex}"
    memory = fsspec.filesystem("memory")
    for name in ("calls-1/a.wav", "calls-2.wav", "others/b.wav"):
        memory.pipe_file(f"{bucket}/{name}", b"1")
    found = list(read_items(f"{bucket}/calls-"))
    assert [item.id for item in found] == ["calls-1/a.wav", "calls-2.wav"]
    assert found[0].uri == f"{bucket}/calls-1/a.wav"


def test_manifest_in_a_bucket_leads_to_its_neighbours() -> None:
    bucket = f"memory:///{uuid.uuid4().hex}"
    fsspec.filesystem("memory").pipe_file(f"{bucket}/list.jsonl", b'{"uri": "s/a.wav"}')
    (item,) = read_items(f"{bucket}/list.jsonl")
    assert (item.id, item.uri) == ("s/a.wav", f"{bucket}/s/a.wav")


def test_single_recording_is_a_job(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"1")
    assert [item.id for item in read_items(str(tmp_path / "a.wav"))] == ["a.wav"]


@pytest.mark.parametrize("source", ["missing", "missing/*.wav", "nope://x", "missing.jsonl"])
def test_source_that_leads_nowhere_is_an_error(tmp_path: Path, source: str) -> None:
    with pytest.raises(ManifestError):
        read_items(source if "://" in source else f"{tmp_path}/{source}")


def test_file_name_that_is_not_unicode_gets_an_id_that_is(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xc4\xe3.wav")).write_bytes(b"1")
    (item,) = read_items(str(tmp_path))
    assert item.id == "%C4%E3.wav"
    assert Path(item.uri).read_bytes() == b"1"


def test_memory_does_not_grow_with_the_rows_content(tmp_path: Path) -> None:
    with (tmp_path / "list.jsonl").open("w") as file:
        for number in range(20_000):
            file.write(json.dumps({"uri": f"{number}.wav", "text": "字" * 500}) + "\n")
    tracemalloc.start()
    num = sum(1 for _ in read_items(str(tmp_path / "list.jsonl")))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num == 20_000
    assert peak_bytes < 8 * 2**20


PRINTABLE = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=30)
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40).map(str.strip)
ROWS = st.lists(
    st.tuples(PRINTABLE, PRINTABLE.map(lambda name: f"/data/{name}"), TEXT),
    min_size=1,
    max_size=20,
    unique_by=lambda row: row[0],
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(ROWS, st.booleans())
def test_what_was_written_is_read_from_either_format(
    tmp_path: Path, rows: list[tuple[str, str, str]], with_bom: bool
) -> None:
    expected = [BatchItem(key, uri, reference=text or None) for key, uri, text in rows]
    bom = b"\xef\xbb\xbf" if with_bom else b""
    lines = [json.dumps({"id": key, "uri": uri, "text": text}) for key, uri, text in rows]
    assert items(tmp_path, bom + "\n".join(lines).encode()) == expected
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("id", "uri", "text"), *rows])
    assert items(tmp_path, bom + table.getvalue().encode(), "list.csv") == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["list.csv", "list.jsonl", "list.tsv"]))
def test_any_bytes_are_items_or_one_clear_error(tmp_path: Path, content: bytes, name: str) -> None:
    try:
        found = items(tmp_path, content, name)
    except ManifestError:
        return
    assert len({item.id for item in found}) == len(found) > 0
