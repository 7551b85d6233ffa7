"""What happens to the text when a chunk kills or blocks its recognizer, and on redeploys."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from serve_app.settings import Settings
from tests.fakes.faulty_recognizer import DEADLY, STICKY, build_faulty_recognizer, marked
from tests.fakes.faulty_segmenter import STICKY_BYTES, build_faulty_segmenter
from tests.service.requests import audio_file, post, read_audio, transcribe
from tests.waiting import wait_until

pytestmark = pytest.mark.ray

MARK_S = 45.0


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(scope="module")
def faulty_client(service_url: str, traces: Path) -> Iterator[httpx.Client]:
    """Of an application whose recognizer and segmenter fail at the marks of a test."""
    from ray import serve

    from serve_app.deployments.ingress import build_ingress

    faulty = Settings.model_validate(
        {
            "profile": "asr-only",
            "app_name": "faulty",
            "auth": {"mode": "off"},
            "pack_dir": traces / "packs",
            "recognizer": {"stuck_after_s": 3},
            "segmenter": {"stuck_after_s": 5},
        }
    )
    recognizer = build_faulty_recognizer(faulty)
    app = build_ingress(faulty, build_faulty_segmenter(faulty, recognizer), recognizer, None)
    serve.run(app, name="faulty", route_prefix="/faulty")
    with httpx.Client(base_url=f"{service_url}/faulty", timeout=240, trust_env=False) as client:
        yield client
    serve.delete("faulty", _blocking=False)


@pytest.fixture
def recording(demo_flac: bytes) -> np.ndarray:
    speech = read_audio(demo_flac)
    return np.tile(speech, 100 * 16_000 // len(speech) + 1)


@pytest.fixture(autouse=True)
def forgotten(traces: Path) -> None:
    for trace in traces.glob("*.trace"):
        trace.unlink()


def spans(answer: dict[str, list[dict[str, float]]]) -> list[tuple[float, str]]:
    return [(part["start"], str(part["text"])) for part in answer["segments"]]


def test_chunk_that_kills_its_recognizer_is_given_up_and_its_neighbors_are_not(
    client: httpx.Client, faulty_client: httpx.Client, recording: np.ndarray, traces: Path
) -> None:
    file = audio_file(marked(recording, DEADLY, MARK_S))
    fields = {"response_format": "verbose_json", "stages": "asr"}
    whole = transcribe(client, file, **fields)
    response = post(faulty_client, file, **fields)
    assert response.status_code == 200, response.text
    answer = response.json()
    (failed,) = answer["failed_ranges"]
    assert failed["start"] <= MARK_S <= failed["end"] <= failed["start"] + 30
    assert "poison" in str(failed)
    assert answer["partial"] is True
    kept = [part for part in spans(whole) if not failed["start"] <= part[0] < failed["end"]]
    assert kept
    assert spans(answer) == kept
    # The first death had no culprit yet; then the chunk ran alone, twice.
    lines = (traces / "faulty.trace").read_text().splitlines()
    assert lines[1:] == ["died with 1", "died with 1"]


def test_recognizer_that_hangs_is_replaced_without_loss_of_text(
    client: httpx.Client, faulty_client: httpx.Client, recording: np.ndarray, traces: Path
) -> None:
    file = audio_file(marked(recording, STICKY, MARK_S))
    expected = transcribe(client, file, stages="asr")["text"]
    answer = transcribe(faulty_client, file, stages="asr")
    assert (traces / "faulty.trace").read_text().startswith("stuck")
    assert answer["text"] == expected


def test_clips_beside_a_file_that_gets_its_segmenter_replaced_are_all_transcribed(
    client: httpx.Client, faulty_client: httpx.Client, demo_flac: bytes, traces: Path
) -> None:
    clip = audio_file(read_audio(demo_flac)[: 3 * 16_000])
    sticky = clip + STICKY_BYTES
    expected = transcribe(client, clip, stages="asr")["text"]
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(post, faulty_client, sticky, stages="asr")
        wait_until((traces / "segmenter.trace").exists)
        # They wait behind it on the segmenter that is about to be replaced.
        others = [pool.submit(post, faulty_client, clip, stages="asr") for _ in range(9)]
        answers = [each.result() for each in (first, *others)]
    assert [(each.status_code, each.json().get("text")) for each in answers] == [
        (200, expected)
    ] * 10


def test_running_request_survives_the_replacement_of_all_deployments(
    client: httpx.Client, settings: Settings, demo_flac: bytes
) -> None:
    speech = read_audio(demo_flac)
    # A fast machine may be done with a short recording before the replicas are told to stop.
    for times in (8, 16, 32):
        recording = audio_file(np.tile(speech, times), kind="FLAC")
        expected = transcribe(client, recording)["text"]
        begun = threading.Event()
        with ThreadPoolExecutor(2) as pool:
            answer = pool.submit(streamed_text, client, recording, begun)
            assert begun.wait(60)
            change = pool.submit(redeploy, settings)
            wait_until_updating(settings.app_name)
            was_running = not answer.done()
            change.result()
            assert answer.result() == expected
        if was_running:
            return
    pytest.fail("the replicas were told to stop too late to matter")


def redeploy(settings: Settings) -> None:
    """Deploys the application again, which replaces the replicas of all of its deployments."""
    from ray import serve

    from serve_app.app import build

    serve.run(build(settings), name=settings.app_name, route_prefix="/")


def wait_until_updating(app_name: str) -> None:
    """Returns once each of the deployments has begun to replace its replica."""
    from ray import serve

    waiting = {"Ingress", "Segmenter", "Recognizer", "Punctuator"}

    def all_began() -> bool:
        deployments = serve.status().applications[app_name].deployments
        waiting.difference_update(
            [name for name in waiting if deployments[name].status != "HEALTHY"]
        )
        return not waiting

    wait_until(all_began, lambda: f"{waiting} to be replaced", interval_s=0.02)


def streamed_text(client: httpx.Client, recording: bytes, begun: threading.Event) -> str:
    """Returns the text of a request; tells when its first words have come."""
    import json

    from tests.service.requests import URL

    data = {"model": "whisper-1", "stream": "true"}
    with client.stream("POST", URL, data=data, files={"file": ("r", recording)}) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                begun.set()
                event = json.loads(line.removeprefix("data: "))
                if event["type"] == "transcript.text.done":
                    return str(event["text"])
    raise AssertionError("the stream ended without a text")
