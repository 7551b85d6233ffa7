"""One local cluster with the demo profile for the service tests that a worker runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from loadtests.ports import free_port
from serve_app.launch import RunningApplication, prepare_environment, running
from serve_app.settings import Settings
from tests.otlp_receiver import Receiver, receiving

SAMPLES = Path(__file__).parents[2] / "serve_app" / "packs" / "builtin" / "samples"


@pytest.fixture(scope="session")
def spool_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spool")


@pytest.fixture(scope="session")
def page_upload_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page-uploads")


@pytest.fixture(scope="session")
def span_receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def settings(spool_dir: Path, page_upload_dir: Path, span_receiver: Receiver) -> Settings:
    settings = Settings.model_validate(
        {
            "profile": "demo",
            "http": {"port": free_port()},
            # Tests deploy further applications, by Serve's own means.
            "auth": {"mode": "off"},
            # Reservations for a second application beside the first, and one that ends.
            "cluster": {"num_cpus": 6},
            "audio": {"spool_dir": spool_dir, "max_upload_bytes": 50 * 2**20},
            "ui": {
                "enabled": True,
                "upload_dir": page_upload_dir,
                "num_cpus": 0.1,
            },
            "live": {"enabled": True},
            "tracing": {"otlp_endpoint": span_receiver.url},
        }
    )
    # Tests wait for what is counted; Ray exports it every 10 s otherwise.
    os.environ.setdefault("RAY_metrics_report_interval_ms", "3000")
    # Must come before anything imports Ray.
    prepare_environment(settings)
    return settings


# Not of the session: a service that idles takes a tenth of a core from the tests that follow.
@pytest.fixture(scope="package")
def application(settings: Settings) -> Iterator[RunningApplication]:
    with running(settings) as application:
        yield application


@pytest.fixture(scope="package")
def service_url(application: RunningApplication) -> str:
    return application.url


@pytest.fixture
def client(service_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service_url, timeout=240, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def demo_flac() -> bytes:
    return (SAMPLES / "demo.flac").read_bytes()


@pytest.fixture(scope="session")
def demo_text() -> str:
    spoken = json.loads((SAMPLES / "demo.json").read_text(encoding="utf-8"))
    return "".join(sentence["text"] for sentence in spoken)
