"""A draft by Whisper base, refined by the demo pack, through a service of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from loadtests.ports import free_port
from serve_app.cluster import prepare_environment, running
from serve_app.packs import PackContents
from serve_app.pipeline.scoring import character_error_rate
from serve_app.settings import Settings
from tests.fakes.recorded_drafts import ASR_EXAMPLE_TEXT
from tests.service.requests import transcribe

pytestmark = pytest.mark.ray

GRANULARITIES = {"timestamp_granularities[]": ["word", "segment"]}


@pytest.fixture(scope="module")
def hybrid_client(whisper_pack: PackContents) -> Iterator[httpx.Client]:
    settings = Settings.model_validate(
        {
            "profile": "hybrid-whisper",
            "app_name": "hybrid",
            "http": {"port": free_port()},
            "cluster": {"num_cpus": 4},
            "recognizer": {
                "pack": "paraformer-demo",
                "whisper": {"pack": f"dir:{whisper_pack.directory}"},
                "deployment": {"num_replicas": 1, "num_cpus": 1.0},
            },
            "punctuator": {"pack": "ct-punc-demo"},
        }
    )
    prepare_environment(settings)
    with (
        running(settings) as application,
        httpx.Client(base_url=application.url, timeout=240, trust_env=False) as client,
    ):
        yield client


def test_recording_is_drafted_and_each_segment_names_its_model(
    hybrid_client: httpx.Client, asr_example: Path, whisper_pack: PackContents
) -> None:
    answer = transcribe(
        hybrid_client, asr_example.read_bytes(), response_format="verbose_json", **GRANULARITIES
    )
    drafter = f"dir:{whisper_pack.directory}"
    assert {segment["model"] for segment in answer["segments"]} == {drafter}
    assert {word["model"] for word in answer["words"]} == {drafter}
    said = "".join(word["word"] for word in answer["words"])
    assert character_error_rate(ASR_EXAMPLE_TEXT, said) <= 0.1


def test_keyword_has_a_segment_refined(hybrid_client: httpx.Client, asr_example: Path) -> None:
    answer = transcribe(
        hybrid_client,
        asr_example.read_bytes(),
        response_format="verbose_json",
        keywords="交易",
        **GRANULARITIES,
    )
    models = {word["model"] for word in answer.get("words", [])}
    assert models <= {"paraformer-demo"}
