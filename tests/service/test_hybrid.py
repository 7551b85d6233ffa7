"""A draft by Whisper base, refined by the demo pack, by an application beside the first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serve_app.packs import PackContents
from serve_app.settings import Settings
from serve_app.transcript.cer import character_error_rate
from tests.fakes.recorded_drafts import ASR_EXAMPLE_TEXT
from tests.service.requests import transcribe

pytestmark = pytest.mark.ray

GRANULARITIES = {"timestamp_granularities[]": ["word", "segment"]}


@pytest.fixture(scope="module")
def hybrid_client(service_url: str, whisper_pack: PackContents) -> Iterator[httpx.Client]:
    from ray import serve

    from serve_app.app import build

    small = {"deployment": {"num_replicas": 1, "num_cpus": 0.1}}
    settings = Settings.model_validate(
        {
            "profile": "hybrid-whisper",
            "app_name": "hybrid",
            "auth": {"mode": "off"},
            "segmenter": small,
            "recognizer": {
                "pack": "paraformer-demo",
                "whisper": {"pack": f"dir:{whisper_pack.directory}"},
                "deployment": {"num_replicas": 1, "num_cpus": 1.0},
            },
            "punctuator": {"pack": "ct-punc-demo", **small},
            "ingress": small,
        }
    )
    serve.run(build(settings), name="hybrid", route_prefix="/hybrid")
    try:
        with httpx.Client(base_url=f"{service_url}/hybrid", timeout=240, trust_env=False) as client:
            yield client
    finally:
        serve.delete("hybrid", _blocking=False)


def test_recording_is_drafted_and_each_segment_names_its_model(
    hybrid_client: httpx.Client, asr_example: Path, whisper_pack: PackContents
) -> None:
    answer = transcribe(
        hybrid_client, asr_example.read_bytes(), response_format="verbose_json", **GRANULARITIES
    )
    drafter = whisper_pack.directory.name
    assert answer["language"] == "zh"
    assert {segment["model"] for segment in answer["segments"]} == {drafter}
    assert {word["model"] for word in answer["words"]} == {drafter}
    said = "".join(word["word"] for word in answer["words"])
    assert character_error_rate(ASR_EXAMPLE_TEXT, said) <= 0.1


def test_keyword_has_a_segment_refined(hybrid_client: httpx.Client, asr_example: Path) -> None:
    answer = transcribe(
        hybrid_client,
        asr_example.read_bytes(),
        response_format="verbose_json",
        refine_keywords="交易",
        **GRANULARITIES,
    )
    models = {word["model"] for word in answer.get("words", [])}
    assert models <= {"paraformer-demo"}


def test_requested_language_is_reported_by_recording_and_utterance(
    hybrid_client: httpx.Client, asr_example: Path
) -> None:
    fields = {"response_format": "verbose_json", "include[]": "utterances"}
    answer = transcribe(hybrid_client, asr_example.read_bytes(), language="en-US", **fields)
    assert answer["language"] == "en"
    assert {utterance["language"] for utterance in answer["utterances"]} == {"en"}
