"""Uploads in parts: each byte is stored before the offset moves, whatever a client claims."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.api import job_files, resumable
from serve_app.api.body import UploadRate
from serve_app.api.job_requests import read_job_request
from serve_app.api.limits import ApiLimits
from serve_app.api.resumable import MIN_SAVED_BYTES, PART_TYPE
from serve_app.core.job_errors import StoreUnavailable
from serve_app.scheduling.admission import Limits
from tests.api.job_client import MAX_RESUMABLE_BYTES, MAX_UPLOAD_BYTES, JobApi, job_api, wav
from tests.api.sockets import served
from tests.api.test_job_creation import until
from tests.api.test_transcription import error_of
from tests.fakes.asgi import Exchange

METADATA = "Upload-Metadata"
TUS = {"Tus-Resumable": "1.0.0"}
RECORDING = wav(10.0)
LENGTH = len(RECORDING)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Parts of 100 kB, so that a recording of 10 s has several."""
    for module in (resumable, job_files):
        monkeypatch.setattr(module, "PART_BYTES", 100_000)
    return 100_000


async def create(jobs: JobApi, length: int | str = LENGTH, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await jobs.client.post(
        "/v1/uploads", headers={**TUS, "Upload-Length": str(length), **named}
    )


async def created(jobs: JobApi, length: int = LENGTH) -> str:
    response = await create(jobs, length)
    assert response.status_code == 201, response.text
    return response.headers["location"]


async def patch(
    jobs: JobApi, path: str, offset: int | str, content: Any, **headers: str
) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await jobs.client.patch(
        path,
        content=content,
        headers={**TUS, "Content-Type": PART_TYPE, "Upload-Offset": str(offset), **named},
    )


async def offset_of(jobs: JobApi, path: str) -> int:
    response = await jobs.client.head(path, headers=TUS)
    assert response.status_code == 200
    return int(response.headers["upload-offset"])


def stored(jobs: JobApi) -> bytes:
    return b"".join(jobs.files.contents[name] for name in sorted(jobs.files.contents))


async def test_upload_becomes_a_job(jobs: JobApi, small_parts: int) -> None:
    path = await created(jobs)
    assert path.startswith("/v1/uploads/upl_")
    first = await patch(jobs, path, 0, RECORDING[:150_000])
    assert (first.status_code, first.headers["upload-offset"]) == (204, "150000")
    assert await offset_of(jobs, path) == 150_000
    last = await patch(jobs, path, 150_000, RECORDING[150_000:])
    assert last.headers["upload-offset"] == str(LENGTH)
    assert stored(jobs) == RECORDING

    upload_id = path.rpartition("/")[2]
    response = await jobs.client.post(
        "/v1/jobs", json={"model": "whisper-1", "upload_id": upload_id, "priority": "low"}
    )
    assert response.status_code == 202
    job = await jobs.store.get("a", response.json()["id"])
    assert (job.upload_id, job.audio_bytes) == (upload_id, LENGTH)
    assert job.audio_s == pytest.approx(10.0)
    document = read_job_request(jobs.files.contents[f"{job.id}/request.json"])
    assert document.audio == tuple(
        name for name in sorted(jobs.files.contents) if name.startswith(upload_id)
    )
    assert "upload_id" not in document.fields


async def test_upload_is_taken_once(jobs: JobApi) -> None:
    path = await created(jobs)
    await patch(jobs, path, 0, RECORDING)
    fields = {"model": "whisper-1", "upload_id": path.rpartition("/")[2]}
    headers = {"Idempotency-Key": "k"}
    first = await jobs.client.post("/v1/jobs", data=fields, headers=headers)
    assert first.status_code == 400  # a form without a file is no multipart
    first = await jobs.client.post("/v1/jobs", json=fields, headers=headers)
    again = await jobs.client.post("/v1/jobs", json=fields, headers=headers)
    assert first.json()["id"] == again.json()["id"]
    other = await jobs.client.post("/v1/jobs", json=fields)
    assert (other.status_code, error_of(other)["code"]) == (404, "upload_not_found")
    removal = await jobs.client.delete(path, headers=TUS)
    assert removal.status_code == 404
    assert stored(jobs).startswith(b"{") or RECORDING in stored(jobs)
    await jobs.client.delete(f"/v1/jobs/{first.json()['id']}")
    await until(lambda: not jobs.files.contents)


async def test_incomplete_upload_makes_no_job(jobs: JobApi) -> None:
    path = await created(jobs)
    await patch(jobs, path, 0, RECORDING[:100])
    fields = {"model": "whisper-1", "upload_id": path.rpartition("/")[2]}
    response = await jobs.client.post("/v1/jobs", json=fields)
    assert (response.status_code, error_of(response)["code"]) == (409, "upload_incomplete")


async def test_upload_that_is_no_audio_makes_no_job(jobs: JobApi) -> None:
    path = await created(jobs, 5_000)
    await patch(jobs, path, 0, b"x" * 5_000)
    fields = {"model": "whisper-1", "upload_id": path.rpartition("/")[2]}
    response = await jobs.client.post("/v1/jobs", json=fields)
    assert (response.status_code, error_of(response)["code"]) == (400, "unknown_audio_format")


async def test_large_upload_that_is_no_audio_is_refused_at_once(jobs: JobApi) -> None:
    path = await created(jobs, 900_000)
    response = await patch(jobs, path, 0, b"x" * 800_000)
    assert (response.status_code, error_of(response)["code"]) == (400, "unknown_audio_format")
    assert await offset_of(jobs, path) == 0
    assert not jobs.files.contents


async def test_creation_with_its_first_part(jobs: JobApi) -> None:
    metadata = f"filename {base64.b64encode('名.wav'.encode()).decode()},empty"
    response = await jobs.client.post(
        "/v1/uploads",
        content=RECORDING[:1000],
        headers={
            **TUS,
            "Upload-Length": str(LENGTH),
            "Content-Type": PART_TYPE,
            "Upload-Metadata": metadata,
        },
    )
    assert (response.status_code, response.headers["upload-offset"]) == (201, "1000")
    path = response.headers["location"]
    shown = await jobs.client.get(path)
    assert shown.json()["metadata"] == {"filename": "名.wav", "empty": ""}
    assert shown.json()["offset_bytes"] == 1000
    head = await jobs.client.head(path, headers=TUS)
    assert head.headers["upload-metadata"] == metadata
    assert head.headers["upload-length"] == str(LENGTH)
    assert head.headers["cache-control"] == "no-store"
    assert head.headers["upload-expires"].endswith("GMT")


async def test_options_tell_what_is_supported(jobs: JobApi) -> None:
    response = await jobs.client.options("/v1/uploads")
    assert response.status_code == 204
    assert response.headers["tus-version"] == "1.0.0"
    assert set(response.headers["tus-extension"].split(",")) == {
        "creation", "creation-with-upload", "expiration", "termination"
    }  # fmt: skip
    assert response.headers["tus-max-size"] == str(MAX_RESUMABLE_BYTES)


@pytest.mark.parametrize(
    ("length", "headers", "status", "named"),
    [
        (MAX_RESUMABLE_BYTES + 1, {}, 413, "file"),
        (0, {}, 400, "file"),
        ("-1", {}, 400, "Upload-Length"),
        ("1e5", {}, 400, "Upload-Length"),
        ("٣", {}, 400, "Upload-Length"),
        ("9" * 400, {}, 400, "Upload-Length"),
        ("", {}, 400, "Upload-Length"),
        (10, {"Upload_Defer_Length": "1"}, 400, "Upload-Length"),
        (10, {"Upload_Concat": "partial"}, 400, "Upload-Length"),
        (10, {"Upload_Metadata": "name ###"}, 400, METADATA),
        (10, {"Upload_Metadata": "a YQ==,a YQ=="}, 400, METADATA),
        (10, {"Upload_Metadata": "a /w=="}, 400, METADATA),
        (10, {"Upload_Metadata": ",".join(f"k{n} YQ==" for n in range(17))}, 400, METADATA),
        (10, {"Upload_Metadata": f"a {base64.b64encode(b'x' * 513).decode()}"}, 400, METADATA),
        (10, {"Upload_Metadata": f"{'k' * 65} YQ=="}, 400, METADATA),
    ],
)  # fmt: skip
async def test_wrong_creation_is_refused(
    jobs: JobApi, length: int | str, headers: dict[str, str], status: int, named: str
) -> None:
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    response = await jobs.client.post(
        "/v1/uploads", headers=[(b"Upload-Length", str(length).encode()), *sent]
    )
    assert (response.status_code, error_of(response)["param"]) == (status, named)
    assert response.headers["tus-resumable"] == "1.0.0"


async def test_another_version_is_refused(jobs: JobApi) -> None:
    path = await created(jobs)
    for method, target in (
        ("POST", "/v1/uploads"),
        ("PATCH", path),
        ("DELETE", path),
        ("GET", path),
    ):
        response = await jobs.client.request(
            method, target, headers={"Tus-Resumable": "0.2.2", "Upload-Length": "10"}
        )
        assert response.status_code == 412
        assert response.headers["tus-version"] == "1.0.0"


class TestParts:
    @pytest.mark.parametrize("offset", [1, LENGTH, LENGTH + 1])
    async def test_other_offset_is_a_conflict(self, jobs: JobApi, offset: int) -> None:
        path = await created(jobs)
        response = await patch(jobs, path, offset, b"x")
        assert (response.status_code, error_of(response)["code"]) == (409, "upload_conflict")

    @pytest.mark.parametrize("offset", ["-1", "x", "", "0x1", "9" * 300])
    async def test_odd_offset_is_refused(self, jobs: JobApi, offset: str) -> None:
        path = await created(jobs)
        response = await patch(jobs, path, offset, b"x")
        assert (response.status_code, error_of(response)["param"]) == (400, "Upload-Offset")

    @pytest.mark.parametrize("kind", ["application/octet-stream", "", "multipart/form-data"])
    async def test_other_type_is_refused(self, jobs: JobApi, kind: str) -> None:
        path = await created(jobs)
        response = await patch(jobs, path, 0, b"x", Content_Type=kind)
        assert response.status_code == 415
        assert await offset_of(jobs, path) == 0

    async def test_declared_length_beyond_the_end_is_refused_unread(self, jobs: JobApi) -> None:
        path = await created(jobs, 1000)
        response = await patch(jobs, path, 0, b"x" * 1001)
        assert (response.status_code, error_of(response)["code"]) == (400, "malformed_body")
        assert not jobs.files.contents

    async def test_chunked_bytes_beyond_the_end_are_refused(
        self, jobs: JobApi, small_parts: int
    ) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, LENGTH, 50_000):
                yield RECORDING[start : start + 50_000]
            yield b"more"

        path = await created(jobs)
        response = await patch(jobs, path, 0, pieces())
        assert response.status_code == 400
        kept = await offset_of(jobs, path)
        assert kept % small_parts == 0
        assert stored(jobs) == RECORDING[:kept]
        assert (await patch(jobs, path, kept, RECORDING[kept:])).status_code == 204
        assert stored(jobs) == RECORDING

    async def test_part_of_a_finished_upload_is_refused(self, jobs: JobApi) -> None:
        path = await created(jobs)
        await patch(jobs, path, 0, RECORDING)
        assert (await patch(jobs, path, LENGTH, b"")).status_code == 204
        assert (await patch(jobs, path, LENGTH, b"x")).status_code == 400
        assert stored(jobs) == RECORDING

    async def test_empty_part_changes_nothing(self, jobs: JobApi) -> None:
        path = await created(jobs)
        assert (await patch(jobs, path, 0, b"")).status_code == 204
        assert await offset_of(jobs, path) == 0

    async def test_simultaneous_parts_leave_one_recording(
        self, jobs: JobApi, small_parts: int
    ) -> None:
        path = await created(jobs)
        sizes = (50_000, 120_000, LENGTH, 99_999, 50_000)
        answers = await asyncio.gather(*(patch(jobs, path, 0, RECORDING[:size]) for size in sizes))
        assert {answer.status_code for answer in answers} <= {204, 409}
        offset = await offset_of(jobs, path)
        while offset < LENGTH:
            answer = await patch(jobs, path, offset, RECORDING[offset : offset + 70_000])
            assert answer.status_code == 204
            offset = int(answer.headers["upload-offset"])
        fields = {"model": "whisper-1", "upload_id": path.rpartition("/")[2]}
        job = (await jobs.client.post("/v1/jobs", json=fields)).json()
        names = read_job_request(jobs.files.contents[f"{job['id']}/request.json"]).audio
        assert b"".join(jobs.files.contents[name] for name in names) == RECORDING

    async def test_number_of_parts_is_bounded(
        self, jobs: JobApi, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resumable, "_MAX_PARTS", 2)
        path = await created(jobs)
        for offset in range(2):
            assert (await patch(jobs, path, offset, b"R")).status_code == 204
        response = await patch(jobs, path, 2, b"x")
        assert (response.status_code, error_of(response)["code"]) == (400, "malformed_body")


class TestOwners:
    @pytest.mark.parametrize("method", ["HEAD", "GET", "PATCH", "DELETE"])
    async def test_upload_of_another_key_is_not_found(self, jobs: JobApi, method: str) -> None:
        path = await created(jobs)
        await patch(jobs, path, 0, RECORDING[:1000])
        headers = {**TUS, **jobs.as_b, "Content-Type": PART_TYPE, "Upload-Offset": "1000"}
        response = await jobs.client.request(method, path, headers=headers, content=b"x")
        assert response.status_code == 404
        assert await offset_of(jobs, path) == 1000

    async def test_upload_of_another_key_makes_no_job(self, jobs: JobApi) -> None:
        path = await created(jobs)
        await patch(jobs, path, 0, RECORDING)
        fields = {"model": "whisper-1", "upload_id": path.rpartition("/")[2]}
        response = await jobs.client.post("/v1/jobs", json=fields, headers=jobs.as_b)
        assert (response.status_code, error_of(response)["code"]) == (404, "upload_not_found")

    @pytest.mark.parametrize(
        "upload_id",
        ["", "..", "upl_a/../../x", "job_" + "a" * 24, "upl_" + "a" * 24, "x" * 5000, "\x00"],
    )
    async def test_odd_upload_ids_are_not_found(self, jobs: JobApi, upload_id: str) -> None:
        response = await jobs.client.post(
            "/v1/jobs", json={"model": "whisper-1", "upload_id": upload_id}
        )
        assert response.status_code in {400, 404}
        assert not jobs.files.contents

    async def test_number_of_open_uploads_is_bounded(
        self, jobs: JobApi, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resumable, "_MAX_OPEN_UPLOADS", 2)
        first = await created(jobs)
        await created(jobs)
        response = await create(jobs)
        assert (response.status_code, error_of(response)["code"]) == (429, "too_many_uploads")
        assert (await jobs.client.delete(first, headers=TUS)).status_code == 204
        await created(jobs)

    async def test_removed_upload_is_gone_with_its_parts(self, jobs: JobApi) -> None:
        path = await created(jobs)
        await patch(jobs, path, 0, RECORDING[:1000])
        assert (await jobs.client.delete(path, headers=TUS)).status_code == 204
        assert not jobs.files.contents
        assert (await jobs.client.head(path, headers=TUS)).status_code == 404
        assert (await jobs.client.delete(path, headers=TUS)).status_code == 404

    async def test_method_may_be_overridden(self, jobs: JobApi) -> None:
        path = await created(jobs)
        headers = {**TUS, "Content-Type": PART_TYPE, "Upload-Offset": "0"}
        part = await jobs.client.post(
            path, content=RECORDING[:9], headers={**headers, "X-HTTP-Method-Override": "PATCH"}
        )
        assert part.headers["upload-offset"] == "9"
        other = await jobs.client.post(path, headers={**headers, "X-HTTP-Method-Override": "GET"})
        assert (other.status_code, other.headers["allow"]) == (405, "DELETE, GET, HEAD, PATCH")
        assert (
            await jobs.client.post(path, headers={**TUS, "X-HTTP-Method-Override": "DELETE"})
        ).status_code == 204


def part_request(path: str, offset: int, content: bytes) -> httpx.Request:
    return httpx.Request(
        "PATCH",
        f"http://test{path}",
        content=content,
        headers={
            **TUS,
            "Authorization": "Bearer a",
            "Content-Type": PART_TYPE,
            "Upload-Offset": str(offset),
        },
    )


class TestBrokenConnections:
    async def test_what_came_is_kept(self, jobs: JobApi, small_parts: int) -> None:
        path = await created(jobs)
        exchange = Exchange(jobs.app, part_request(path, 0, RECORDING), 100, num_sent=90)
        await until(lambda: len(jobs.files.contents) == 2)
        exchange.leave()
        await exchange.ended()
        await until(lambda: len(jobs.files.contents) == 3)
        kept = await offset_of(jobs, path)
        assert kept == len(stored(jobs)) == 90 * -(-LENGTH // 100)
        await patch(jobs, path, kept, RECORDING[kept:])
        assert stored(jobs) == RECORDING

    async def test_canceled_request_keeps_what_came(self, jobs: JobApi) -> None:
        path = await created(jobs)
        exchange = Exchange(jobs.app, part_request(path, 0, RECORDING), 10, num_sent=5)
        await until(lambda: exchange._incoming.empty())
        await asyncio.sleep(0.01)
        exchange.task.cancel()
        await until(lambda: jobs.files.contents)
        assert await offset_of(jobs, path) == len(stored(jobs)) == 5 * -(-LENGTH // 10)

    async def test_few_bytes_are_not_worth_a_part(self, jobs: JobApi) -> None:
        path = await created(jobs)
        content = RECORDING[: MIN_SAVED_BYTES - 1]
        exchange = Exchange(jobs.app, part_request(path, 0, content + b"x"), len(content) + 1, 1)
        exchange.leave()
        await exchange.ended()
        assert await offset_of(jobs, path) == 0

    async def test_slow_sender_is_refused_and_what_came_is_kept(self, tmp_path: Path) -> None:
        limits = ApiLimits(MAX_UPLOAD_BYTES, 30, tmp_path, upload_rate=UploadRate(1e6, 0.2))
        async with job_api(tmp_path, limits=limits) as jobs:
            path = await created(jobs)
            exchange = Exchange(jobs.app, part_request(path, 0, RECORDING), 4, num_sent=2)
            await exchange.ended()
            assert exchange.status == 408
            await until(lambda: jobs.files.contents)
            assert await offset_of(jobs, path) == LENGTH // 2

    async def test_room_is_free_after_broken_connections(self, tmp_path: Path) -> None:
        in_flight = Limits(max_bytes=LENGTH, max_running=1, max_waiting=1)
        limits = ApiLimits(MAX_UPLOAD_BYTES, 30, tmp_path, in_flight=in_flight)
        async with job_api(tmp_path, limits=limits) as jobs:
            path = await created(jobs)
            for _ in range(5):
                exchange = Exchange(jobs.app, part_request(path, 0, RECORDING), 100, num_sent=1)
                exchange.leave()
                await exchange.ended()
            assert (await patch(jobs, path, 0, RECORDING)).status_code == 204

    async def test_outage_while_storing_is_a_503_and_can_be_repeated(self, jobs: JobApi) -> None:
        path = await created(jobs)
        jobs.files.fault = StoreUnavailable()
        response = await patch(jobs, path, 0, RECORDING)
        assert (response.status_code, error_of(response)["code"]) == (503, "job_store_unavailable")
        jobs.files.fault = None
        assert await offset_of(jobs, path) == 0
        assert (await patch(jobs, path, 0, RECORDING)).status_code == 204
        assert stored(jobs) == RECORDING


class _Breaking(io.BytesIO):
    """A file that cannot be read to its end at first."""

    breaks = True

    def read(self, size: int | None = -1, /) -> bytes:
        if self.breaks and self.tell() >= 200_000:
            self.breaks = False
            raise OSError("the network is gone")
        return super().read(size)


@pytest.fixture
def tus_client() -> Any:
    return pytest.importorskip("tusclient.client", reason="needs tuspy")


@pytest.mark.parametrize("chunk_bytes", [None, 100_000])
async def test_client_of_tus_uploads(
    jobs: JobApi, tus_client: Any, small_parts: int, chunk_bytes: int | None
) -> None:
    async with served(jobs.app) as port:
        client = tus_client.TusClient(
            f"http://127.0.0.1:{port}/v1/uploads", headers={"Authorization": "Bearer a"}
        )
        options = {} if chunk_bytes is None else {"chunk_size": chunk_bytes}
        uploader = client.uploader(
            file_stream=io.BytesIO(RECORDING), metadata={"filename": "名.wav"}, **options
        )
        await asyncio.to_thread(uploader.upload)
    assert stored(jobs) == RECORDING
    upload = await jobs.store.get_upload("a", str(uploader.url).rpartition("/")[2])
    assert upload.is_complete
    assert upload.metadata == {"filename": "名.wav"}


async def test_client_of_tus_goes_on_after_an_interruption(
    jobs: JobApi, tus_client: Any, small_parts: int
) -> None:
    async with served(jobs.app) as port:
        client = tus_client.TusClient(
            f"http://127.0.0.1:{port}/v1/uploads", headers={"Authorization": "Bearer a"}
        )
        stream = _Breaking(RECORDING)
        first = client.uploader(file_stream=stream, chunk_size=100_000)
        with pytest.raises(Exception, match=r"."):
            await asyncio.to_thread(first.upload)
        assert 0 < len(stored(jobs)) < LENGTH
        second = await asyncio.to_thread(
            lambda: client.uploader(file_stream=io.BytesIO(RECORDING), url=first.url)
        )
        assert second.offset == len(stored(jobs))
        await asyncio.to_thread(second.upload)
    assert stored(jobs) == RECORDING


async def test_connection_that_is_cut_keeps_its_parts(jobs: JobApi, small_parts: int) -> None:
    path = await created(jobs)
    async with served(jobs.app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (
            f"PATCH {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\n"
            f"Tus-Resumable: 1.0.0\r\nContent-Type: {PART_TYPE}\r\nUpload-Offset: 0\r\n"
            f"Content-Length: {LENGTH}\r\n\r\n"
        )
        writer.write(head.encode() + RECORDING[:280_000])
        await writer.drain()
        await until(lambda: len(jobs.files.contents) == 2)
        writer.transport.abort()
        await until(lambda: len(jobs.files.contents) == 3)
        kept = await offset_of(jobs, path)
        assert stored(jobs) == RECORDING[:kept]
        assert kept > 200_000
