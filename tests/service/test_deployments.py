"""The graph itself: what a profile deploys, and what happens when a replica dies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import httpx
import numpy as np
import pytest

from serve_app.settings import Settings
from tests.service.requests import audio_file, post, read_audio, transcribe

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def asr_only_url(service_url: str, settings: Settings) -> Iterator[str]:
    """A second application beside the first, as a Serve config would start it."""
    from ray import serve

    from serve_app.app import build

    wanted = {"profile": "asr-only", "app_name": "asr-only", "auth": {"mode": "off"}}
    app = build(Settings.model_validate(wanted))
    serve.run(app, name="asr-only", route_prefix="/asr-only")
    yield f"{service_url}/asr-only"
    serve.delete("asr-only")


def replica_actors(deployment: str) -> list[str]:
    import ray

    return [
        actor["name"]
        for actor in ray.util.list_named_actors(all_namespaces=True)
        if f"#{deployment}#" in actor["name"] and "paraserve" in actor["name"]
    ]


def test_demo_profile_deploys_the_four(service_url: str, settings: Settings) -> None:
    from ray import serve

    deployments = serve.status().applications[settings.app_name].deployments
    assert set(deployments) == {"Ingress", "Segmenter", "Recognizer", "Punctuator"}


def test_profile_without_punctuation_deploys_no_punctuator(asr_only_url: str) -> None:
    from ray import serve

    deployments = serve.status().applications["asr-only"].deployments
    assert set(deployments) == {"Ingress", "Segmenter", "Recognizer"}


def test_profile_without_punctuation_transcribes_and_refuses_it(
    asr_only_url: str, client: httpx.Client, demo_flac: bytes
) -> None:
    with httpx.Client(base_url=asr_only_url, timeout=120, trust_env=False) as other:
        assert set(other.get("/readyz").json()["stages"]) == {"asr"}
        text = transcribe(other, demo_flac)["text"]
        assert text == transcribe(client, demo_flac, stages="asr")["text"]
        refused = post(other, demo_flac, stages="asr,punctuation")
        assert refused.json()["error"]["code"] == "stage_not_deployed"


def test_serve_parses_the_arguments_of_a_config_into_settings() -> None:
    from ray.serve._private import api

    from serve_app.app import build

    parse = cast(Callable[..., Any], api.call_user_app_builder_with_args_if_necessary)
    size = {"deployment": {"num_replicas": 3}}
    app = parse(build, {"profile": "demo", "auth": {"mode": "off"}, "recognizer": size})
    assert app._bound_deployment.name == "Ingress"
    with pytest.raises(ValueError, match="recognizr"):
        parse(build, {"recognizr": {}})


@pytest.fixture(scope="module")
def long_recording(service_url: str, demo_flac: bytes) -> tuple[bytes, str]:
    """A recording that takes seconds, and its text."""
    recording = audio_file(np.tile(read_audio(demo_flac), 6), kind="FLAC")
    with httpx.Client(base_url=service_url, timeout=240, trust_env=False) as client:
        return recording, transcribe(client, recording)["text"]


@pytest.mark.parametrize("deployment", ["Recognizer", "Segmenter", "Punctuator"])
def test_death_of_a_replica_loses_no_text(
    client: httpx.Client, long_recording: tuple[bytes, str], deployment: str
) -> None:
    import ray

    recording, expected = long_recording
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(transcribe, client, recording)
        wait_until_busy(client)
        (victim,) = replica_actors(deployment)
        assert not answer.done(), "the replica would be killed too late to matter"
        ray.kill(ray.get_actor(victim, namespace="serve"), no_restart=False)
        assert answer.result()["text"] == expected


def wait_until_busy(client: httpx.Client) -> None:
    """Returns when the recognizer has begun on the recording that was just posted."""
    started = threading.Event()

    def stream() -> None:
        # A second small request is answered only behind the first chunks of the other.
        transcribe(client, audio_file(np.zeros(16_000, np.int16)), stages="asr")
        started.set()

    thread = threading.Thread(target=stream)
    thread.start()
    started.wait(60)
    thread.join()
