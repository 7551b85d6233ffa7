"""The files of jobs, in a directory and in an object store."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import pytest

from serve_app.core.errors import ConfigurationError, StorageFull
from serve_app.core.job_errors import StoreUnavailable
from serve_app.jobs.files import FsspecFiles
from serve_app.jobs.ports import JobFiles
from tests.fakes.job_files import MemoryFiles
from tests.jobs.s3 import S3

NOW = timedelta(seconds=-1)
"""Every file is at least as old."""


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    server = S3()
    yield server
    server.close()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def bucket(s3: S3, credentials: None, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    return s3.new_bucket()


@pytest.fixture(params=["memory", "directory", "s3", "fsspec"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> JobFiles:
    if request.param == "memory":
        return MemoryFiles()
    if request.param == "directory":
        return FsspecFiles(str(tmp_path / "jobs"))
    if request.param == "fsspec":
        return FsspecFiles(f"memory://{tmp_path.name}/jobs")
    return FsspecFiles(f"{request.getfixturevalue('bucket')}/some/jobs")


async def old_ids(files: JobFiles, older_than: timedelta = NOW) -> list[str]:
    return sorted([job_id async for job_id in files.ids(older_than)])


async def test_bytes_come_back(files: JobFiles) -> None:
    for content in (b"", b"first", b"second" * 1000):
        await files.put_bytes("job_a/request.json", content)
        assert await files.get_bytes("job_a/request.json") == content
    with pytest.raises(FileNotFoundError):
        await files.get_bytes("job_a/audio")
    with pytest.raises(FileNotFoundError):
        await files.get_bytes("job_b/audio")


async def test_parts_are_joined_in_the_order_given(files: JobFiles, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"one")
    await files.put_file("upl_a/part-00000000000000000000-3", source)
    source.write_bytes(b"two")
    await files.put_file("upl_a/part-00000000000000000003-3", source)
    names = await files.names("upl_a")
    assert list(names) == [
        "upl_a/part-00000000000000000000-3",
        "upl_a/part-00000000000000000003-3",
    ]
    await files.get_to(names, target)
    assert target.read_bytes() == b"onetwo"
    await files.get_to(names[::-1], target)
    assert target.read_bytes() == b"twoone"
    with pytest.raises(FileNotFoundError):
        await files.get_to([*names, "upl_a/part-9"], target)


async def test_names_are_those_of_one_job(files: JobFiles) -> None:
    for name in ("job_a/b", "job_a/a", "job_ab/c", "upl_a/d"):
        await files.put_bytes(name, b"x")
    assert list(await files.names("job_a")) == ["job_a/a", "job_a/b"]
    assert list(await files.names("job_unknown")) == []


async def test_removal_is_of_one_file_or_of_all_of_a_job(files: JobFiles) -> None:
    for name in ("job_a/audio", "job_a/request.json", "job_a/result-1.json", "job_ab/audio"):
        await files.put_bytes(name, b"x")
    for _ in range(2):
        await files.delete("job_a/audio")
    assert list(await files.names("job_a")) == ["job_a/request.json", "job_a/result-1.json"]
    for _ in range(2):
        await files.delete_all("job_a")
    assert list(await files.names("job_a")) == []
    assert list(await files.names("job_ab")) == ["job_ab/audio"]
    assert await old_ids(files) == ["job_ab"]


async def test_ids_are_those_without_a_new_file(files: JobFiles) -> None:
    assert await old_ids(files) == []
    for name in ("job_a/audio", "upl_-_/part-1", "job_Z/audio"):
        await files.put_bytes(name, b"x")
    assert await old_ids(files) == ["job_Z", "job_a", "upl_-_"]
    assert await old_ids(files, timedelta(hours=1)) == []


@pytest.mark.parametrize(
    "name",
    [
        "job_a",
        "job_a/",
        "/job_a/audio",
        "job_a/../audio",
        "../job_a/audio",
        "job_a/..",
        "job_a/.part-1",
        "job_a/b/c",
        "audio",
        "jobs.sqlite3/audio",
        "job_/audio",
        "job_a\x00/audio",
        "job_a/au\x00dio",
        "job_é/audio",
        "job_a/audio\n",
    ],
)
@pytest.mark.parametrize("kind", ["directory", "memory"])
async def test_no_name_leads_out_of_a_job(tmp_path: Path, kind: str, name: str) -> None:
    files = FsspecFiles(str(tmp_path / "jobs") if kind == "directory" else "memory://jobs")
    await files.put_bytes("job_a/audio", b"x")
    for call in (
        files.put_bytes(name, b"y"),
        files.put_file(name, tmp_path),
        files.get_bytes(name),
        files.get_to([name], tmp_path / "target"),
        files.delete(name),
    ):
        with pytest.raises(ValueError, match="of a job"):
            await call
    for job_id in (name, "..", ".", ""):
        for all_calls in (files.names(job_id), files.delete_all(job_id)):
            if job_id != "job_a":
                with pytest.raises(ValueError, match="job or an upload"):
                    await all_calls
            else:
                all_calls.close()
    assert await files.get_bytes("job_a/audio") == b"x"


@pytest.mark.parametrize(
    "storage",
    [
        "http://host/jobs",
        "reference://file",
        "simplecache::s3://bucket/jobs",
        "s3://key:secret@bucket/jobs",
        "sftp://host/jobs",
    ],
)
def test_other_storage_is_refused(storage: str) -> None:
    with pytest.raises(ConfigurationError, match=r"jobs\.storage") as caught:
        FsspecFiles(storage)
    assert "secret" not in str(caught.value)


def test_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    FsspecFiles(f"file://{tmp_path}/a/b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be created"):
        FsspecFiles(str(tmp_path / "file" / "jobs"))


async def test_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FsspecFiles(str(tmp_path))
    await files.put_bytes("job_a/audio", b"old")

    def broken(handle: int) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(StoreUnavailable):
            await files.put_bytes("job_a/audio", b"new")
    assert await files.get_bytes("job_a/audio") == b"old"
    assert [entry.name for entry in (tmp_path / "job_a").iterdir()] == ["audio"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_full_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    files = FsspecFiles(str(tmp_path / "jobs"))
    source = tmp_path / "source"
    source.write_bytes(b"x")

    def full(source: BinaryIO, target: BinaryIO, length: int) -> None:
        target.write(b"half")
        raise OSError(number, "no room")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfileobj", full)
        with pytest.raises(StorageFull):
            await files.put_file("job_a/audio", source)
    assert list(await files.names("job_a")) == []
    assert await old_ids(files) == []
    await files.put_file("job_a/audio", source)


async def test_file_of_a_writer_that_died_is_no_file(tmp_path: Path) -> None:
    files = FsspecFiles(str(tmp_path))
    await files.put_bytes("job_a/audio", b"x")
    (tmp_path / "job_a" / ".part-123").write_bytes(b"half")
    assert list(await files.names("job_a")) == ["job_a/audio"]
    await files.delete_all("job_a")
    assert os.listdir(tmp_path) == []


async def test_database_beside_the_files_is_none_of_them(tmp_path: Path) -> None:
    files = FsspecFiles(str(tmp_path))
    for name in ("jobs.sqlite3", "jobs.sqlite3-wal", "jobs.sqlite3.lock", "job_a"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "lost+found").mkdir()
    assert await old_ids(files) == []


async def test_directory_that_went_away_is_unavailable_and_not_empty(tmp_path: Path) -> None:
    root = tmp_path / "mounted"
    files = FsspecFiles(str(root))
    await files.put_bytes("job_a/audio", b"x")
    root.rename(tmp_path / "away")
    for call in (
        files.get_bytes("job_a/audio"),
        files.put_bytes("job_b/audio", b"x"),
        files.names("job_a"),
        files.delete("job_a/audio"),
        files.delete_all("job_a"),
        old_ids(files),
    ):
        with pytest.raises(StoreUnavailable):
            await call
    assert not root.exists()
    (tmp_path / "away").rename(root)
    assert await files.get_bytes("job_a/audio") == b"x"


async def test_writes_and_removals_of_a_job_do_not_meet(tmp_path: Path) -> None:
    files = FsspecFiles(str(tmp_path))

    async def write_and_remove(number: int) -> None:
        for _ in range(30):
            await files.put_bytes(f"job_a/{number}", b"x")
            await files.delete(f"job_a/{number}")

    await asyncio.gather(*(write_and_remove(number) for number in range(6)))
    assert list(await files.names("job_a")) == []


@pytest.mark.slow
async def test_large_recording_goes_to_s3_in_parts(bucket: str, tmp_path: Path) -> None:
    files = FsspecFiles(f"{bucket}/jobs")
    source, target = tmp_path / "source", tmp_path / "target"
    content = os.urandom(1 << 20) * 40
    source.write_bytes(content)
    await files.put_file("job_a/audio", source)
    await files.get_to(["job_a/audio"], target)
    assert target.read_bytes() == content
    assert await files.get_bytes("job_a/audio") == content


async def test_many_files_go_from_s3(bucket: str, s3: S3) -> None:
    files = FsspecFiles(bucket)
    await asyncio.gather(*(files.put_bytes(f"job_a/{number}", b"x") for number in range(30)))
    await files.put_bytes("job_ab/audio", b"x")
    assert len(await files.names("job_a")) == 30
    await files.delete_all("job_a")
    assert "job_a/" not in s3.objects(bucket)
    assert "job_ab/audio" in s3.objects(bucket)


async def test_missing_bucket_is_unavailable(bucket: str) -> None:
    files = FsspecFiles(f"{bucket}-other/jobs")
    for call in (
        files.put_bytes("job_a/audio", b"x"),
        files.get_bytes("job_a/audio"),
        files.names("job_a"),
        files.delete_all("job_a"),
    ):
        with pytest.raises(StoreUnavailable):
            await call


async def test_refused_rights_are_unavailable(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*args: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Access Denied")

    monkeypatch.setattr("s3fs.S3FileSystem._pipe_file", refused)
    files = FsspecFiles(f"{bucket}/jobs")
    with pytest.raises(StoreUnavailable):
        await files.put_bytes("job_a/audio", b"x")


@pytest.mark.slow
async def test_s3_that_does_not_answer_is_unavailable(
    credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    files = FsspecFiles("s3://bucket/jobs")
    with pytest.raises(StoreUnavailable):
        await files.put_bytes("job_a/audio", b"x")
    with pytest.raises(StoreUnavailable):
        await files.get_bytes("job_a/audio")
