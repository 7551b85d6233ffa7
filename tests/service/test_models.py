"""Every profile transcribes through the service, and one service serves several models.

Random weights stand in for the published packs: the class is theirs, the sizes are
small. What they say means nothing, so shape and times are looked at; for text there
are the demo packs, in the other modules.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.batch.job import BatchJob, JobOrder
from serve_app.settings import Settings
from serve_app.transcript.cer import character_error_rate
from tests.fakes.small_campplus import write_small_campplus
from tests.fakes.tiny_packs import TinyParaformer, write_paraformer
from tests.service.requests import post, read_audio, transcribe

pytestmark = pytest.mark.ray

SEACO = TinyParaformer("SeacoParaformer", vocabulary_size=60, num_hotword_blocks=6, seed=2)
VANILLA = TinyParaformer(vocabulary_size=60)
PROFILES = {
    "paraformer-large": SEACO,  # on a CPU here
    "paraformer-large-cpu": SEACO,
    "paraformer-large-vanilla": VANILLA,
    "paraformer-small": VANILLA,
}
SMALL: dict[str, Any] = {
    "segmenter": {"deployment": {"num_replicas": 1, "num_cpus": 0.1}},
    "punctuator": {
        "pack": "ct-punc-demo",
        "device": "cpu",
        "dtype": "float32",
        "deployment": {"num_cpus": 0.1, "num_gpus": 0},
    },
    "ingress": {"deployment": {"num_replicas": 1, "num_cpus": 0.1}},
}
ON_CPU = {
    "device": "cpu",
    "dtype": "float32",
    "deployment": {"num_replicas": 1, "num_cpus": 0.2, "num_gpus": 0},
}


@contextmanager
def _served(service_url: str, name: str, overrides: dict[str, Any]) -> Iterator[httpx.Client]:
    """Runs a second application beside the first, as a Serve config would start it."""
    from ray import serve

    from serve_app.app import build

    app = build(
        Settings.model_validate({**SMALL, "app_name": name, "auth": {"mode": "off"}, **overrides})
    )
    serve.run(app, name=name, route_prefix=f"/{name}")
    try:
        with httpx.Client(base_url=f"{service_url}/{name}", timeout=120, trust_env=False) as client:
            yield client
    finally:
        # The next application starts meanwhile.
        serve.delete(name, _blocking=False)


def _check_times(answer: dict[str, Any], duration_s: float) -> None:
    words = answer["words"]
    assert words
    edges = [edge for word in words for edge in (word["start"], word["end"])]
    assert edges == sorted(edges)
    assert edges[0] >= 0
    assert edges[-1] <= duration_s
    segments = answer["segments"]
    for before, after in pairwise(segments):
        assert before["end"] <= after["start"]
    assert segments[-1]["end"] <= duration_s
    assert answer["text"] == "".join(segment["text"] for segment in segments)


@pytest.mark.parametrize("profile", PROFILES)
def test_profile_transcribes(
    service_url: str, tmp_path: Path, demo_flac: bytes, profile: str
) -> None:
    tiny = PROFILES[profile]
    pack = write_paraformer(tmp_path / "pack", tiny)
    recognizer = {**ON_CPU, "pack": f"dir:{pack}"}
    served = _served(service_url, profile, {"profile": profile, "recognizer": recognizer})
    fields = {
        "model": pack.name,
        "response_format": "verbose_json",
        "timestamp_granularities[]": ["word", "segment"],
    }
    with served as client:
        stages = client.get("/readyz").json()["stages"]
        assert set(stages) == {"vad", "asr", "punctuation"}
        answer = transcribe(client, demo_flac, **fields)
        _check_times(answer, len(read_audio(demo_flac)) / 16_000)
        hinted = post(client, demo_flac, hotwords="一丁 丂", **fields)
        if tiny is SEACO:
            assert hinted.status_code == 200, hinted.text
            assert hinted.json()["text"] != answer["text"]
            _check_times(hinted.json(), answer["duration"])
            # Nobody else's words stick to the model.
            assert transcribe(client, demo_flac, **fields)["text"] == answer["text"]
        else:
            assert hinted.status_code == 400
            assert "no bias encoder" in hinted.json()["error"]["message"]


@pytest.fixture
def speaker_settings(tmp_path: Path) -> dict[str, Any]:
    write_small_campplus(tmp_path / "voices")
    embedder = {"pack": f"dir:{tmp_path / 'voices'}", "deployment": {"num_cpus": 0.1}}
    return {
        "profile": "speakers",
        "speaker_embedder": embedder,
        "recognizer": {"deployment": {"num_replicas": 1, "num_cpus": 0.1}},
    }


def test_profile_with_speakers_labels_the_known_text(
    service_url: str, speaker_settings: dict[str, Any], demo_flac: bytes, demo_text: str
) -> None:
    with _served(service_url, "speakers", speaker_settings) as client:
        stages = client.get("/readyz").json()["stages"]
        assert set(stages) == {"vad", "asr", "punctuation", "speakers"}
        fields = {"response_format": "diarized_json", "num_speakers": "2"}
        answer = transcribe(client, demo_flac, **fields)
        assert character_error_rate(demo_text, answer["text"]) <= 0.03
        # The weights are random: who is who means nothing, but each sentence has a speaker.
        assert {segment["speaker"] for segment in answer["segments"]} <= {"A", "B"}
        assert (
            character_error_rate(demo_text, "".join(s["text"] for s in answer["segments"])) < 0.03
        )
        streamed = post(client, demo_flac, stream="true", **fields)
        assert streamed.status_code == 200
        segments = [
            json.loads(line.removeprefix("data: "))
            for line in streamed.text.splitlines()
            if '"transcript.text.segment"' in line
        ]
        assert [(one["text"], one["speaker"]) for one in segments] == [
            (one["text"], one["speaker"]) for one in answer["segments"]
        ]
        plain = transcribe(client, demo_flac, response_format="verbose_json")
        assert "speaker" not in plain["segments"][0]


# Ray Data 2.60 sets options of its own that it has deprecated.
@pytest.mark.filterwarnings("ignore:`use_\\w+` is deprecated:DeprecationWarning")
def test_job_on_the_service_has_the_speakers_of_its_answers(
    service_url: str, tmp_path: Path, speaker_settings: dict[str, Any], demo_flac: bytes
) -> None:
    source, output = tmp_path / "source", tmp_path / "output"
    source.mkdir()
    (source / "demo.flac").write_bytes(demo_flac)
    batch = {"resources": "serve", "segmenters": {"num_cpus": 0.1}, "log_interval_s": 1}
    with _served(service_url, "speakers-job", speaker_settings) as client:
        settings = Settings.model_validate(
            {**SMALL, **speaker_settings, "app_name": "speakers-job", "batch": batch}
        )
        order = JobOrder(str(source), str(output), formats=("srt",), speakers="2")
        report = BatchJob(settings, order, lambda line: None).run()
        answer = transcribe(client, demo_flac, response_format="verbose_json", num_speakers="2")
    assert (report.totals.num_finished, report.totals.num_failed) == (1, 0)
    (file,) = output.glob("transcripts/*.json")
    result = json.loads(file.read_text())
    assert result["warnings"] == []
    assert result["models"]["speakers"]["name"].endswith("voices")
    assert [(one["speaker"], one["text"]) for one in result["segments"]] == [
        (one["speaker"], one["text"]) for one in answer["segments"]
    ]
    (subtitles,) = output.glob("transcripts/*.srt")
    assert "A: " in subtitles.read_text()


def test_int8_profile_transcribes_the_known_text(
    service_url: str, demo_flac: bytes, demo_text: str
) -> None:
    recognizer = {**ON_CPU, "dtype": "int8", "pack": "paraformer-demo"}
    with _served(
        service_url, "cpu-int8", {"profile": "cpu-int8", "recognizer": recognizer}
    ) as client:
        answer = transcribe(client, demo_flac, model="paraformer-demo")
    assert character_error_rate(demo_text, answer["text"]) <= 0.03


@pytest.fixture(scope="module")
def several(
    service_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[httpx.Client, list[str], list[Path]]]:
    """The demo pack and two random ones, of which two fit at a time."""
    import serve_app

    builtin = Path(serve_app.__file__).parent / "packs" / "builtin" / "paraformer-demo"
    largest = (builtin / "model.pt").stat().st_size
    directory = tmp_path_factory.mktemp("several")
    packs = [
        write_paraformer(directory / "seaco", SEACO),
        write_paraformer(directory / "vanilla", VANILLA),
    ]
    names = ["paraformer-demo", *(pack.name for pack in packs)]
    small_bytes = max((pack / "model.pt").stat().st_size for pack in packs)
    recognizer = {
        **ON_CPU,
        "pack": names[0],
        "other_packs": [f"dir:{pack}" for pack in packs],
        "models_bytes": largest + small_bytes,
    }
    with _served(service_url, "several", {"profile": "demo", "recognizer": recognizer}) as client:
        yield client, names, packs


def test_each_request_picks_its_model(
    several: tuple[httpx.Client, list[str], list[Path]], demo_flac: bytes, demo_text: str
) -> None:
    client, names, _ = several
    listed = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert listed[:3] == names
    texts = [transcribe(client, demo_flac, model=name, stages="vad,asr")["text"] for name in names]
    assert len(set(texts)) == 3
    again = [transcribe(client, demo_flac, model=name, stages="vad,asr")["text"] for name in names]
    assert again == texts
    assert transcribe(client, demo_flac, model="whisper-1", stages="vad,asr")["text"] == texts[0]
    refused = post(client, demo_flac, model="paraformer-large")
    assert refused.status_code == 404
    assert refused.json()["error"]["code"] == "model_not_found"


def test_hotwords_are_checked_against_the_model_that_is_picked(
    several: tuple[httpx.Client, list[str], list[Path]], demo_flac: bytes
) -> None:
    client, names, _ = several
    for name, words, status, says in (
        (names[1], "一丁 20", 200, ""),
        (names[1], "龘", 200, ""),
        (names[1], "file:///etc/passwd", 400, "paths"),
        (names[2], "一丁", 400, "no bias encoder"),
        (names[0], "一丁", 400, "no bias encoder"),
    ):
        answer = post(client, demo_flac, model=name, hotwords=words)
        assert answer.status_code == status, answer.text
        if status == 400:
            error = answer.json()["error"]
            assert (error["type"], error["param"]) == ("invalid_request_error", "hotwords")
            assert says in error["message"]


def test_model_that_cannot_be_loaded_is_reported_and_others_continue(
    several: tuple[httpx.Client, list[str], list[Path]], demo_flac: bytes
) -> None:
    client, names, packs = several
    weights = packs[1] / "model.pt"
    shutil.copy(weights, packs[1] / "good.pt")
    transcribe(client, demo_flac, model=names[1])  # leaves no room for the other
    weights.write_bytes(b"no checkpoint")
    answer = post(client, demo_flac, model=names[2])
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"]["code"] == "model_unavailable"
    assert str(packs[1].parent) not in answer.text
    assert transcribe(client, demo_flac, model=names[0])["text"]
    shutil.copy(packs[1] / "good.pt", weights)
    assert transcribe(client, demo_flac, model=names[2])["text"]
