"""A service with jobs and resumable uploads, in memory, behind httpx's transport."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx

MODELS = {"data": [{"id": "paraformer-demo", "root": "paraformer-demo"}]}
RESULT = {
    "text": "你好。",
    "language": "zh",
    "duration": 2.5,
    "segments": [{"id": 0, "start": 0.1, "end": 1.2, "text": "你好。"}],
}

Fault = httpx.Response | Exception


def refusal(status: int, code: str, **headers: str) -> httpx.Response:
    error = {"error": {"code": code, "message": f"it is {code}", "param": None}}
    return httpx.Response(status, json=error, headers=headers)


def job_json(job_id: str = "job_1", status: str = "queued", **others: object) -> dict[str, Any]:
    """Returns a job as the service answers it."""
    total_s = 60.0
    done_s = {"queued": 0.0, "running": 30.0, "completed": 60.0}.get(status, 0.0)
    return {
        "id": job_id,
        "object": "transcription.job",
        "status": status,
        "created_at": 1_700_000_000,
        "started_at": None,
        "finished_at": None,
        "expires_at": None,
        "removed_at": None,
        "priority": "normal",
        "metadata": {},
        "progress": {
            "audio_s": done_s,
            "total_audio_s": total_s,
            "percent": 100 * done_s / total_s,
        },
        "position": 0 if status == "queued" else None,
        "num_attempts": 0,
        "webhook": None,
        "error": None,
        **others,
    }


class JobService:
    """Answers requests about jobs; each route's faults come first.

    Attributes:
        jobs: by id, as they are answered.
        uploads: by id, what has arrived.
        always: what every request is answered with instead; None for nothing.
        faults: by method and path, what to answer or raise instead, once each.
        requests: all of them, as method and path.
        created: the multipart bodies that made jobs.
        events: of a job, the answers of its event stream, one per connection.
    """

    def __init__(self, *jobs: dict[str, Any]) -> None:
        self.jobs = {one["id"]: one for one in jobs}
        self.uploads: dict[str, bytearray] = {}
        self.lengths: dict[str, int] = {}
        self.by_key: dict[str, str] = {}
        self.always: Fault | None = None
        self.faults: dict[tuple[str, str], list[Fault]] = {}
        self.requests: list[tuple[str, str]] = []
        self.headers: list[httpx.Headers] = []
        self.created: list[bytes] = []
        self.queries: list[httpx.QueryParams] = []
        self.events: list[str] = []
        self.usage: dict[str, Any] = {}
        self.after_request: Callable[[str, str], object] = lambda method, path: None

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        method, path = request.method, request.url.path
        self.requests.append((method, path))
        self.headers.append(request.headers)
        self.queries.append(request.url.params)
        if isinstance(self.always, Exception):
            raise self.always
        if self.always is not None:
            return self.always
        faults = self.faults.get((method, path))
        if faults:
            fault = faults.pop(0)
            if isinstance(fault, Exception):
                raise fault
            return fault
        try:
            return self._answer(request, method, path)
        finally:
            self.after_request(method, path)

    def _answer(self, request: httpx.Request, method: str, path: str) -> httpx.Response:
        if path == "/v1/models":
            return httpx.Response(200, json=MODELS)
        if path == "/v1/usage":
            return httpx.Response(200, json=self.usage)
        if path.startswith("/v1/uploads"):
            return self._upload(request, method, path.rpartition("/")[2])
        if path == "/v1/jobs":
            return self._create(request) if method == "POST" else self._list(request)
        if not path.startswith("/v1/jobs/"):
            return httpx.Response(404, json={"error": {"code": "not_found", "message": "no"}})
        job_id, _, what = path.removeprefix("/v1/jobs/").partition("/")
        if job_id not in self.jobs:
            return refusal(404, "job_not_found")
        return self._job(method, job_id, what)

    def _create(self, request: httpx.Request) -> httpx.Response:
        self.created.append(request.read())
        key = request.headers["Idempotency-Key"]
        if key not in self.by_key:
            self.by_key[key] = f"job_{len(self.jobs) + 1}"
            self.jobs[self.by_key[key]] = job_json(self.by_key[key])
        return httpx.Response(202, json=self.jobs[self.by_key[key]])

    def _list(self, request: httpx.Request) -> httpx.Response:
        after, limit = request.url.params.get("after"), int(request.url.params["limit"])
        ids = list(self.jobs)
        if after is not None and after not in ids:
            return refusal(404, "job_not_found")
        rest = ids[ids.index(after) + 1 :] if after else ids
        data = [self.jobs[job_id] for job_id in rest[:limit]]
        return httpx.Response(
            200, json={"object": "list", "data": data, "has_more": len(rest) > limit}
        )

    def _job(self, method: str, job_id: str, what: str) -> httpx.Response:
        job = self.jobs[job_id]
        if what == "events":
            stream = self.events.pop(0) if self.events else event(job)
            return httpx.Response(200, text=stream)
        if what == "result":
            if job["status"] != "completed":
                return refusal(409, "job_not_finished")
            if self.queries[-1]["response_format"] == "verbose_json":
                return httpx.Response(200, json=RESULT)
            return httpx.Response(200, text="你好。\n", headers={"X-Paraserve-Warning": "demo"})
        if method == "DELETE":
            del self.jobs[job_id]
            return httpx.Response(204)
        if what == "cancel":
            job["status"] = "cancelled"
        return httpx.Response(200, json=job)

    def _upload(self, request: httpx.Request, method: str, upload_id: str) -> httpx.Response:
        if request.headers.get("Tus-Resumable") != "1.0.0":
            return httpx.Response(412)
        if method == "POST":
            upload_id = f"upl_{len(self.uploads) + 1}"
            self.uploads[upload_id] = bytearray()
            self.lengths[upload_id] = int(request.headers["Upload-Length"])
            location = f"http://inside:1/v1/uploads/{upload_id}"
            return httpx.Response(201, headers={"Location": location})
        if upload_id not in self.uploads:
            return httpx.Response(404)
        stored = self.uploads[upload_id]
        if method == "PATCH":
            if int(request.headers["Upload-Offset"]) != len(stored):
                return refusal(409, "upload_conflict")
            stored += request.read()
        return httpx.Response(204, headers={"Upload-Offset": str(len(stored))})


def event(job: dict[str, Any]) -> str:
    return f"event: job\ndata: {json.dumps(job)}\n\n"


def file_name(metadata: str) -> str:
    """Returns the file name in the metadata of an upload."""
    return base64.b64decode(metadata.removeprefix("filename ")).decode()
