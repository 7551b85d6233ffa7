from __future__ import annotations

import csv
import io
import json
import os
import re
import tracemalloc
import uuid
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import serve_app
from serve_app.batch.fingerprint import file_info
from serve_app.batch.manifest import read_items
from serve_app.batch.output_paths import file_name
from serve_app.batch.outputs import OutputStore
from serve_app.batch.records import BatchItem
from serve_app.batch.remote_reader import ReadOptions, open_audio
from serve_app.batch.report import read_report
from serve_app.batch.uris import UnusableUri
from serve_app.core.errors import ConfigurationError, ManifestError


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
    uris = ["b/../a.wav", f"{tmp_path}/c.wav", "/else/d.wav", "s3://h/e.wav?1#2"]
    content = "".join(json.dumps({"uri": uri}) + "\n" for uri in uris)
    assert [item.id for item in items(tmp_path, content)] == [
        "a.wav", "c.wav", "else/d.wav", "h/e.wav?1#2",
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
    assert "is already used in line 1" in message


def test_long_lists_of_problems_are_cut(tmp_path: Path) -> None:
    message = problem(tmp_path, "{\n" * 1000)
    assert len(message.splitlines()) == 22
    assert message.endswith("and 980 more")


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_gbk_is_a_clear_error(tmp_path: Path, name: str) -> None:
    content = "uri,text\na.wav,你好\n" if name == "list.csv" else '{"uri": "a"}\n{"uri": "你"}\n'
    message = problem(tmp_path, content.encode("gbk"), name)
    assert "line 2: is not UTF-8 (possibly GBK" in message


def test_utf_16_is_a_clear_error(tmp_path: Path) -> None:
    assert "UTF-16" in problem(tmp_path, "uri\na.wav\n".encode("utf-16"), "list.csv")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("name\nx\n", "must name the columns"),
        ("uri,uri\na,b\n", "names the column 'uri' twice"),
        ("uri,id\na\n", "line 2: has 1 fields, the header 2"),
        ('uri\n"a.wav\n', "is not CSV"),
        ("uri\n\n", "it names no recordings"),
        ("", "it names no recordings"),
    ],
)
def test_error_for_an_invalid_csv_names_the_reason(
    tmp_path: Path, content: str, expected: str
) -> None:
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


def test_manifest_in_a_bucket_leads_to_its_neighbors() -> None:
    bucket = f"memory:///{uuid.uuid4().hex}"
    fsspec.filesystem("memory").pipe_file(f"{bucket}/list.jsonl", b'{"uri": "s/a.wav"}')
    (item,) = read_items(f"{bucket}/list.jsonl")
    assert (item.id, item.uri) == ("s/a.wav", f"{bucket}/s/a.wav")


def test_single_recording_is_a_job(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"1")
    assert [item.id for item in read_items(str(tmp_path / "a.wav"))] == ["a.wav"]


def test_keys_that_differ_after_a_sign_of_urls_are_two_recordings(tmp_path: Path) -> None:
    bucket = f"memory://b-{uuid.uuid4().hex}"
    names = [
        "客户/录音#1.wav", "客户/录音#2.wav", "a?x=1.wav", "a?x=2.wav", "50%.wav", "50%25.wav",
        "a+b&c=d;e.wav", "a b.wav", "a\u3000b.wav", "a::b.wav", "a@b:c.wav", "[1]*.wav",
        "'q'\".wav", "a//b.wav", "back\\slash.wav", "a.WAV", "A.wav",
    ]  # fmt: skip
    for name in names:
        fsspec.filesystem("memory").pipe_file(f"{bucket}/{name}", name.encode())
    content = "".join(json.dumps({"uri": f"{bucket}/{name}"}) + "\n" for name in names)
    found = items(tmp_path, content)
    assert len({item.id for item in found}) == len(names)
    for item, name in zip(found, names, strict=True):
        assert item.id.endswith(name)
        with open_audio(item.uri, ReadOptions(1024, 1)) as source:
            assert isinstance(source, io.RawIOBase)
            assert source.read(100) == name.encode()
        assert file_info(item).size_bytes == len(name.encode())
    assert len({file_name(item.id) for item in found}) == len(names)


def test_directory_with_such_names_is_listed_whole(tmp_path: Path) -> None:
    raw = [b"a#1.wav", b"a#2.wav", b"a?.wav", b"a::b.wav", b"\xff.wav", b"%FF.wav", b"x\ny.wav"]
    for name in raw:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(name)
    found = list(read_items(str(tmp_path)))
    assert len({item.id for item in found}) == len(raw)
    assert {Path(item.uri).read_bytes() for item in found} == set(raw)
    assert all(item.id.isprintable() for item in found)
    assert list(read_items(str(tmp_path))) == found


def test_hidden_files_and_those_of_other_systems_are_not_picked(tmp_path: Path) -> None:
    for name in ("a.wav", "._a.wav", ".b.wav", ".trash/c.wav", "__MACOSX/d.wav", "e/._f.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    assert [item.id for item in read_items(str(tmp_path))] == ["a.wav"]


REFUSED = [
    "reference://a.wav::file:///evil.json",
    "simplecache::s3://bucket/a.wav",
    "filecache::memory://b/a.wav",
    "zip://a.wav::file:///etc/archive.zip",
    "zip::/etc/archive.zip",
    "memory://b/a.wav::file:///etc/passwd",
    "s3://bucket/a.wav::http://169.254.169.254/",
    "dir::file:///etc",
    "REFERENCE://a.wav",
    "reference://a.wav",
    "http://169.254.169.254/latest/meta-data",
    "https://host/a.wav",
    "ftp://host/a.wav",
    "sftp://host/a.wav",
    "ssh://host/a.wav",
    "smb://host/a.wav",
    "github://org:repo@main/a.wav",
    "git://repo/a.wav",
    "gist://1/a.wav",
    "data://audio/wav;base64,AAAA",
    "jupyter://host/a.wav",
    "hf://datasets/a/b.wav",
    "tar://a.wav",
    "libarchive://a.wav",
    "cached://a.wav",
    "blockcache://a.wav",
    "async_wrapper://a.wav",
    "generic://a.wav",
    "root://host/a.wav",
    "hdfs://host/a.wav",
    "webhdfs://host/a.wav",
    "dask://a.wav",
    "file://host/etc/passwd",
    "file://relative.wav",
    "s3:///a.wav",
    "s3://bucket/../other/a.wav",
    "s3://bucket/./a.wav",
    "s3://../bucket/a.wav",
    "s3://key:secret@bucket/a.wav",
    "s3://bucket#x/a.wav",
    "s3://bucket/a.wav?versionId=1",
    "s3://bucket?x/a.wav",
    "gs://bucket%2f..%2fother/a.wav",
    "s3://bucket/a\0.wav",
]


@pytest.mark.parametrize("uri", REFUSED)
def test_only_named_protocols_are_opened_from_a_manifest(tmp_path: Path, uri: str) -> None:
    message = problem(tmp_path, json.dumps({"uri": uri}))
    assert "line 1: has a uri that cannot be read" in message
    assert "secret" not in message


@pytest.mark.parametrize("uri", REFUSED)
def test_only_named_protocols_are_opened_from_anywhere(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file system was opened")

    monkeypatch.setattr(fsspec, "get_filesystem_class", refuse)
    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    with pytest.raises(ManifestError):
        read_items(uri)
    with pytest.raises(UnusableUri):
        OutputStore(uri)
    with pytest.raises(ConfigurationError):
        read_report(uri)
    with pytest.raises(UnusableUri):
        file_info(BatchItem("a", uri))
    with pytest.raises(UnusableUri), open_audio(uri, ReadOptions(1024, 1)):
        pass


def test_fsspec_s_own_functions_for_urls_are_not_used() -> None:
    package = Path(serve_app.__file__).parent
    users = [
        path.name
        for path in package.rglob("*.py")
        if re.search(
            r"url_to_fs|fsspec\.open|open_files\(.*fsspec|fsspec\.filesystem", path.read_text()
        )
    ]
    assert users == []


def test_relative_uri_does_not_leave_its_bucket(tmp_path: Path) -> None:
    bucket = f"memory://b-{uuid.uuid4().hex}"
    rows = b'{"uri": "../a.wav"}\n{"uri": "../../../b.wav"}\n'
    fsspec.filesystem("memory").pipe_file(f"{bucket}/lists/x/list.jsonl", rows)
    found = list(read_items(f"{bucket}/lists/x/list.jsonl"))
    root = bucket.replace("memory://", "memory:///")
    assert [item.uri for item in found] == [f"{root}/lists/a.wav", f"{root}/b.wav"]


@pytest.mark.parametrize("source", ["missing", "missing/*.wav", "nope://x", "missing.jsonl"])
def test_source_that_leads_nowhere_is_an_error(tmp_path: Path, source: str) -> None:
    with pytest.raises(ManifestError):
        read_items(source if "://" in source else f"{tmp_path}/{source}")


def test_file_name_that_is_not_unicode_gets_an_id_that_is(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xc4\xe3.wav")).write_bytes(b"1")
    (item,) = read_items(str(tmp_path))
    assert item.id == "%C4%E3.wav"
    assert Path(item.uri).read_bytes() == b"1"


@pytest.mark.slow
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
def test_both_formats_are_read_back(
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


def test_a_ts_file_of_a_directory_is_taken_if_it_holds_a_transport_stream(tmp_path: Path) -> None:
    (tmp_path / "page.ts").write_bytes(b"export const greeting: string = 'hello';\n" * 20)
    (tmp_path / "empty.ts").write_bytes(b"")
    (tmp_path / "show.ts").write_bytes((b"\x47" + bytes(187)) * 3)
    (tmp_path / "camera.ts").write_bytes((bytes(4) + b"\x47" + bytes(187)) * 3)

    assert [item.id for item in read_items(str(tmp_path))] == ["camera.ts", "show.ts"]


def test_a_ts_file_of_a_bucket_is_left_out() -> None:
    bucket = f"memory:///{uuid.uuid4().hex}"
    memory = fsspec.filesystem("memory")
    for name in ("a.ts", "b.mts"):
        memory.pipe(f"{bucket}/{name}", (b"\x47" + bytes(187)) * 3)
    assert [item.id for item in read_items(bucket)] == ["b.mts"]
