"""Jobs over HTTP on a real cluster: the runner, its loss, its webhooks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from serve_app.settings import Settings
from serve_app.settings.webhook_secrets import add_webhook_secret
from tests.service.requests import audio_file, read_audio, transcribe
from tests.service.watching import log_directory
from tests.waiting import wait_until

pytestmark = pytest.mark.ray

APP = "jobs"
LEASE_S = 3.0
CHECKPOINT_S = 30.0


@dataclass
class Receiver:
    """Takes webhooks."""

    url: str = ""
    secret: str = ""
    received: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)

    def messages(self, job_id: str) -> list[dict[str, Any]]:
        """Returns the verified messages of a job."""
        client = openai.OpenAI(api_key="none", webhook_secret=self.secret)
        found: list[dict[str, Any]] = []
        for headers, body in list(self.received):
            client.webhooks.verify_signature(body, headers)
            message = json.loads(body)
            if message["data"]["id"] == job_id:
                found.append(message)
        return found


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.received.append((headers, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield receiver
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def jobs_client(service_url: str, storage: Path, receiver: Receiver) -> Iterator[httpx.Client]:
    """Of an application with jobs, a SQLite database and a directory."""
    from ray import serve

    from serve_app.app import build

    secrets_file = storage.parent / "webhook-secrets.yaml"
    secrets_file.unlink(missing_ok=True)
    receiver.secret = add_webhook_secret(secrets_file, "anonymous")
    settings = Settings.model_validate(
        {
            "profile": "demo",
            "app_name": APP,
            "auth": {"mode": "off"},
            "jobs": {
                "enabled": True,
                "storage": str(storage),
                "webhook_secrets_file": secrets_file,
                "webhook_allow_private": True,
                "lease_s": LEASE_S,
                "checkpoint_audio_s": CHECKPOINT_S,
                "max_running": 1,
            },
        }
    )
    serve.run(build(settings), name=APP, route_prefix=f"/{APP}")
    with httpx.Client(base_url=f"{service_url}/{APP}", timeout=240, trust_env=False) as client:
        yield client
    serve.delete(APP)


def create(client: httpx.Client, content: bytes, **fields: str) -> str:
    answer = client.post(
        "/v1/jobs",
        data={"model": "whisper-1", **fields},
        files={"file": ("recording", content)},
    )
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def job_of(client: httpx.Client, job_id: str) -> dict[str, Any]:
    answer = client.get(f"/v1/jobs/{job_id}")
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    return job


def wait_for(client: httpx.Client, job_id: str, status: str = "completed") -> dict[str, Any]:
    """Waits until a job has a status; returns the job."""
    wait_until(lambda: job_of(client, job_id)["status"] == status, lambda: job_of(client, job_id))
    return job_of(client, job_id)


def text_of(client: httpx.Client, job_id: str) -> str:
    answer = client.get(f"/v1/jobs/{job_id}/result")
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["text"]
    return text


def long_recording(demo_flac: bytes, times: int) -> bytes:
    return audio_file(np.tile(read_audio(demo_flac), times), kind="FLAC")


def is_under_way(client: httpx.Client, job_id: str, checkpoint: Path) -> bool:
    """Returns whether there is a checkpoint, or the job has ended without one."""
    return checkpoint.exists() or job_of(client, job_id)["status"] == "completed"


def job_runner_name() -> str | None:
    """Returns the name of the actor that runs the jobs, None while there is none."""
    import ray

    actors = ray.util.list_named_actors(all_namespaces=True)
    names = [actor["name"] for actor in actors if f"{APP}#JobRunner#" in actor["name"]]
    return names[0] if len(names) == 1 else None


def log_lines(job_id: str) -> list[dict[str, Any]]:
    """Returns what the runners have written at the end of attempts at a job."""
    lines: list[dict[str, Any]] = []
    for path in log_directory().glob(f"replica_{APP}_JobRunner_*.log"):
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if entry.get("paraserve_job_id") == job_id and "recognized_audio_s" in entry:
                lines.append(entry)
    return lines


def test_job_has_the_text_of_the_synchronous_route_and_its_webhook_is_signed(
    client: httpx.Client, jobs_client: httpx.Client, receiver: Receiver, demo_flac: bytes
) -> None:
    expected = transcribe(client, demo_flac)["text"]
    job_id = create(jobs_client, demo_flac, webhook_url=receiver.url)
    job = wait_for(jobs_client, job_id)
    assert text_of(jobs_client, job_id) == expected
    assert job["num_attempts"] == 1
    assert job["progress"]["percent"] == 100
    wait_until(lambda: receiver.messages(job_id))
    (message,) = receiver.messages(job_id)
    assert message["type"] == "transcription.completed"
    wait_until(lambda: job_of(jobs_client, job_id)["webhook"]["status"] == "delivered")
    wait_until(lambda: log_lines(job_id))
    (line,) = log_lines(job_id)
    assert line["status"] == "completed"
    assert expected[:10] not in json.dumps(line, ensure_ascii=False)


def test_bad_recording_fails_with_the_code_of_the_synchronous_route(
    jobs_client: httpx.Client, receiver: Receiver, demo_flac: bytes
) -> None:
    damaged = demo_flac[:200] + b"\0" * (len(demo_flac) - 200)
    expected = jobs_client.post(
        "/v1/audio/transcriptions", data={"model": "whisper-1"}, files={"file": ("r", damaged)}
    ).json()["error"]
    job_id = create(jobs_client, damaged, webhook_url=receiver.url)
    error = wait_for(jobs_client, job_id, "failed")["error"]
    assert error == {name: expected[name] for name in ("message", "code", "param")}
    wait_until(lambda: receiver.messages(job_id))
    assert [message["type"] for message in receiver.messages(job_id)] == ["transcription.failed"]


def test_job_goes_on_after_the_loss_of_its_runner(
    client: httpx.Client, jobs_client: httpx.Client, storage: Path, demo_flac: bytes
) -> None:
    import ray

    # A fast machine may be done with a short recording before its runner is lost.
    for times in (10, 20, 40, 80):
        recording = long_recording(demo_flac, times)
        job_id = create(jobs_client, recording)
        checkpoint = storage / job_id / "utterances-1-00001.json"
        wait_until(partial(is_under_way, jobs_client, job_id, checkpoint), interval_s=0.01)
        name = job_runner_name()
        assert name is not None
        ray.kill(ray.get_actor(name, namespace="serve"))
        job = wait_for(jobs_client, job_id)
        if job["num_attempts"] == 2:
            break
    else:
        pytest.fail("the runner was lost too late to matter")
    assert text_of(jobs_client, job_id) == transcribe(client, recording)["text"]
    wait_until(lambda: log_lines(job_id))
    (line,) = log_lines(job_id)
    assert line["num_attempts"] == 2
    assert line["reused_audio_s"] >= 2 * CHECKPOINT_S
    assert job["progress"]["total_audio_s"] >= line["recognized_audio_s"] + line["reused_audio_s"]


def test_job_is_cancelled_while_it_runs(
    jobs_client: httpx.Client, receiver: Receiver, storage: Path, demo_flac: bytes
) -> None:
    job_id = create(jobs_client, long_recording(demo_flac, 80), webhook_url=receiver.url)
    wait_until((storage / job_id / "utterances-1-00000.json").exists, interval_s=0.01)
    answer = jobs_client.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.json()["status"] == "cancelled", answer.text
    # The one runner is free for others again within a renewal.
    began = time.monotonic()
    other = create(jobs_client, demo_flac)
    wait_for(jobs_client, other)
    assert time.monotonic() - began < 120
    assert job_of(jobs_client, job_id)["status"] == "cancelled"
    assert jobs_client.get(f"/v1/jobs/{job_id}/result").status_code == 409
    wait_until(lambda: receiver.messages(job_id))
    assert [one["type"] for one in receiver.messages(job_id)] == ["transcription.cancelled"]


def test_jobs_that_are_running_are_handed_back_when_the_application_is_replaced(
    jobs_client: httpx.Client, storage: Path, demo_flac: bytes
) -> None:
    import ray

    job_id = create(jobs_client, long_recording(demo_flac, 80))
    wait_until((storage / job_id / "utterances-1-00000.json").exists, interval_s=0.01)
    name = job_runner_name()
    assert name is not None
    replica = ray.get_actor(name, namespace="serve")
    ray.get(replica.perform_graceful_shutdown.remote())
    job = job_of(jobs_client, job_id)
    # Handed back, or taken by the replica that stands in already; no attempt is lost.
    assert (job["status"], job["num_attempts"]) in [("queued", 0), ("running", 1)], job
    assert jobs_client.delete(f"/v1/jobs/{job_id}").status_code == 200
    wait_until(lambda: not (storage / job_id / "audio").exists())
