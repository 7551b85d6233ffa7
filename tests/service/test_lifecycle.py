"""What `paraserve serve` starts, where that listens, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import stat
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from loadtests.serving import start_serving
from serve_app.hosting.processes import processes_of_run
from serve_app.hosting.stopping import ExitCode
from tests.service.requests import audio_file, read_audio, transcribe
from tests.service.serving_process import ObservedService, serving
from tests.waiting import LIMIT_S, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

NUM_REQUESTS = 12
NO_PORT = "-1"
# For the tests that send no recordings: fewer replicas to start.
SMALL = 'stages=["asr"]'
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def listening_addresses(directory: Path, command: int) -> dict[str, set[str]]:
    """Returns by address the names of the run's processes that listen there."""
    owners: dict[str, str] = {}
    for pid in [command, *(process.pid for process in processes_of_run(directory))]:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            match = re.match(r"socket:\[(\d+)\]", os.readlink(link))
            if match:
                owners[match[1]] = Path(f"/proc/{pid}/comm").read_text().strip()
    found: dict[str, set[str]] = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in owners:
                found.setdefault(fields[1].partition(":")[0], set()).add(owners[fields[9]])
    return found


def others_may_reach(path: Path) -> bool:
    """Whether other users can open a path, which the directories above it can prevent."""
    places = [path, *path.parents]
    return all(place.stat().st_mode & stat.S_IXOTH for place in places[1:]) and bool(
        path.stat().st_mode & 0o006
    )


def repeated(demo_flac: bytes, times: int) -> bytes:
    return audio_file(np.tile(read_audio(demo_flac), times), kind="FLAC")


def test_service_is_private_and_ends_only_after_its_running_requests(
    demo_flac: bytes,
) -> None:
    long, short = repeated(demo_flac, 4), demo_flac
    with serving() as service:
        addresses = listening_addresses(service.directory, service.process.pid)
        assert set(addresses) <= LOOPBACK, addresses
        assert "haproxy" in addresses["0100007F"]
        open_to_others = [path for path in service.directory.rglob("*") if others_may_reach(path)]
        assert open_to_others == []
        wait_until(lambda: agent_port(service.directory) != "")
        agent = agent_port(service.directory)
        # Beside another cluster its port may be taken, and then it does without.
        if agent != NO_PORT:
            jobs = httpx.get(f"http://127.0.0.1:{agent}/api/job_agent/jobs/", trust_env=False)
            assert jobs.status_code == 401

        with httpx.Client(base_url=service.url, timeout=600, trust_env=False) as client:
            expected = {
                recording: transcribe(client, recording)["text"] for recording in (long, short)
            }
            with ThreadPoolExecutor(NUM_REQUESTS) as pool:
                recordings = [long if number % 3 == 0 else short for number in range(NUM_REQUESTS)]
                answers: list[Future[dict[str, str]]] = [
                    pool.submit(transcribe, client, recording) for recording in recordings
                ]
                counts = service.directory / "requests"
                wait_until(lambda: num_under_way(counts) == NUM_REQUESTS)
                service.process.send_signal(signal.SIGTERM)
                wait_until(lambda: (service.directory / "draining").exists())
                refused = service.get("/v1/models")
                assert refused.status_code == 503
                assert refused.json()["error"]["code"] == "shutting_down"
                assert int(refused.headers["retry-after"]) > 0
                for recording, answer in zip(recordings, answers, strict=True):
                    assert answer.result()["text"] == expected[recording]
        directory = service.directory
        assert service.wait() == ExitCode.DONE, service.output
    assert processes_of_run(directory) == []


def agent_port(directory: Path) -> str:
    """Returns where Ray's agent listens, `NO_PORT` for nowhere, "" until it has written that."""
    files = directory.glob("ray/session_2*/dashboard_agent_listen_port_*")
    written = (file.read_text().strip() for file in files)
    return next((port for port in written if port.isdecimal() or port == NO_PORT), "")


def num_under_way(counts: Path) -> int:
    return sum(int.from_bytes(file.read_bytes(), "little") for file in counts.iterdir())


def test_killed_proxies_cause_no_404_and_a_dead_control_store_ends_the_service() -> None:
    with serving(SMALL) as service:
        directory = service.directory
        seen = Answers(service)
        for victim in ("HAProxyManager", "haproxy"):
            before = {process.pid for process in service.haproxies()}
            kill_of(directory, victim)
            wait_until(lambda b=before: not b & {p.pid for p in service.haproxies()})  # type: ignore[misc]
            seen.until_served()
        assert seen.statuses <= {200, 503}
        assert seen.num_without_retry_after == 0
        service.kill(service.child("gcs_server"))
        began_s = time.monotonic()
        assert service.wait() == ExitCode.NODE_LOST, service.output
        assert time.monotonic() - began_s < 30
        assert "gcs_server has ended" in service.output
    assert processes_of_run(directory) == []


class Answers:
    """What a caller gets who asks again and again."""

    def __init__(self, service: ObservedService) -> None:
        self._service = service
        self.statuses: set[int] = set()
        self.num_without_retry_after = 0

    def until_served(self) -> None:
        wait_until(self._ask)

    def _ask(self) -> bool:
        try:
            response = self._service.get("/v1/models")
        except httpx.TransportError:
            return False
        self.statuses.add(response.status_code)
        if response.status_code == 503:
            self.num_without_retry_after += "retry-after" not in response.headers
        return response.status_code == 200


def kill_of(directory: Path, name: str) -> None:
    for process in processes_of_run(directory):
        title = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        if process.name == name or title.startswith(f"ray::{name}".encode()):
            process.send(signal.SIGKILL)


def test_killed_command_leaves_nothing_and_a_node_without_its_agent_ends_the_service() -> None:
    with serving(SMALL) as service:
        directory = service.directory
        service.process.kill()
        service.process.wait()
        wait_until(lambda: processes_of_run(directory) == [])
    with serving(SMALL) as service:
        directory = service.directory
        kill_of(directory, "DashboardAgent")
        assert service.wait() == ExitCode.NODE_LOST, service.output
        assert "raylet has ended" in service.output
    assert processes_of_run(directory) == []


def test_second_signal_ends_at_once_and_reports_cut_requests(demo_flac: bytes) -> None:
    long = repeated(demo_flac, 12)
    with serving("http.drain_timeout_s=300", "cluster.num_cpus=4") as service:
        directory = service.directory
        broken = threading.Event()

        def ask() -> None:
            try:
                with httpx.Client(base_url=service.url, timeout=600, trust_env=False) as client:
                    for _ in range(100):
                        transcribe(client, long)
            except (httpx.TransportError, AssertionError):
                broken.set()

        asking = threading.Thread(target=ask)
        asking.start()
        wait_until(lambda: num_under_way(directory / "requests") == 1)
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "waiting for 1 running requests" in service.output)
        service.process.send_signal(signal.SIGINT)
        code = service.wait()
        asking.join(60)
        # The request may just have ended by itself.
        assert code == (ExitCode.REQUESTS_CUT if "; 1 requests were" in service.output else 0)
        assert broken.is_set()
    assert processes_of_run(directory) == []


def test_loss_of_the_node_during_the_start_ends_it(tmp_path: Path) -> None:
    """It would wait for what cannot come, until the limit of a start."""
    output = tmp_path / "output"

    def text() -> str:
        return output.read_text(errors="replace")

    with output.open("wb") as file:
        service = start_serving(SMALL, output=file)
    try:
        wait_until(lambda: "waiting for" in text(), text)
        (raylet,) = [one for one in service.descendants() if one.name() == "raylet"]
        raylet.kill()
        assert service.process.wait(LIMIT_S) == 1
    finally:
        service.stop()
    assert "the Ray node was lost during the start" in text()
