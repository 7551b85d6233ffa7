"""The autoscaling policy in Serve's own controller."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.service.requests import transcribe
from tests.waiting import wait_until

pytestmark = pytest.mark.ray

APP = "sleepy"


@pytest.fixture(scope="module")
def sleepy_url(service_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An application whose recognizer may go to zero, deployed as `serve deploy` does."""
    from ray import serve
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    scaling = {
        "min_replicas": 0,
        "max_replicas": 1,
        "downscale_delay_s": 2.0,
        "idle_to_zero_delay_s": 2.0,
        "step_period_s": 1.0,
        "report_interval_s": 1.0,
    }
    config = {
        "applications": [
            {
                "name": APP,
                "route_prefix": f"/{APP}",
                "import_path": "serve_app.app:build",
                "args": {
                    "profile": "asr-only",
                    "app_name": APP,
                    "auth": {"mode": "off"},
                    "recognizer": {"deployment": {"autoscaling": scaling}},
                    "jobs": {"enabled": True, "storage": str(tmp_path_factory.mktemp("jobs"))},
                },
            }
        ]
    }
    client = _get_global_client()
    assert client is not None
    client.deploy_apps(ServeDeploySchema.model_validate(config))
    # It may have gone to sleep before the last of the others was ready.
    wait_until(lambda: num_recognizers() is not None, serve.status)
    yield f"{service_url}/{APP}"
    serve.delete(APP)


def num_recognizers() -> int | None:
    """Returns the recognizers that run or start; None while the application starts."""
    from ray import serve

    application = serve.status().applications[APP]
    if application.status != "RUNNING":
        return None
    return sum(application.deployments["Recognizer"].replica_states.values())


def test_recognizer_scales_to_zero_and_a_request_scales_it_up(
    sleepy_url: str, client: httpx.Client, demo_flac: bytes
) -> None:
    with httpx.Client(base_url=sleepy_url, timeout=120, trust_env=False) as http:
        expected = transcribe(client, demo_flac, stages="asr")["text"]
        assert transcribe(http, demo_flac)["text"] == expected
        assert http.get("/readyz").status_code == 200
        wait_until(lambda: num_recognizers() == 0)
        # Probes of a sleeping service must not wake it.
        for _ in range(5):
            assert http.get("/readyz").status_code == 200
            time.sleep(1.0)
        assert num_recognizers() == 0
        assert transcribe(http, demo_flac)["text"] == expected


def test_job_wakes_a_recognizer_that_went_to_zero(
    sleepy_url: str, client: httpx.Client, demo_flac: bytes
) -> None:
    with httpx.Client(base_url=sleepy_url, timeout=120, trust_env=False) as http:
        expected = transcribe(client, demo_flac, stages="asr")["text"]
        wait_until(lambda: num_recognizers() == 0)
        job = http.post(
            "/v1/jobs", data={"model": "whisper-1"}, files={"file": ("recording", demo_flac)}
        ).json()
        path = f"/v1/jobs/{job['id']}"
        wait_until(lambda: http.get(path).json()["status"] == "completed")
        assert http.get(f"{path}/result").json()["text"] == expected
