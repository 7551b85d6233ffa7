"""Profile cpu-int8-onnx behind the service, on the exported demo pack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serve_app.modeltools.onnx_export import export
from serve_app.packs import open_pack
from serve_app.packs.integrity import BUILTIN_DIRECTORY
from serve_app.settings import Settings
from serve_app.transcript.cer import character_error_rate
from tests.service.requests import transcribe

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def onnx_url(
    service_url: str, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A second application whose recognizer runs on onnxruntime."""
    from ray import serve

    from serve_app.app import build

    demo = open_pack(BUILTIN_DIRECTORY / "paraformer-demo")
    directory: Path = tmp_path_factory.mktemp("packs") / "onnx"
    export(demo, directory, "int8")
    small = {"deployment": {"num_replicas": 1, "num_cpus": 0.1}}
    app = build(
        Settings.model_validate(
            {
                "profile": "cpu-int8-onnx",
                "app_name": "onnx",
                "auth": {"mode": "off"},
                "segmenter": small,
                "recognizer": {
                    "pack": f"dir:{directory}",
                    "deployment": {"num_replicas": 1, "num_cpus": 0.2},
                },
                "punctuator": {"pack": "ct-punc-demo", **small},
                "ingress": small,
            }
        )
    )
    serve.run(app, name="onnx", route_prefix="/onnx")
    yield f"{service_url}/onnx"
    serve.delete("onnx", _blocking=False)


def test_demo_recording_is_transcribed_right_in_int8(
    onnx_url: str, demo_flac: bytes, demo_text: str
) -> None:
    with httpx.Client(base_url=onnx_url, timeout=120, trust_env=False) as client:
        stages = client.get("/readyz").json()["stages"]
        answer = transcribe(client, demo_flac, response_format="verbose_json", language="zh-CN")
    assert set(stages) == {"vad", "asr", "punctuation"}
    assert answer["language"] == "zh"
    assert character_error_rate(demo_text, answer["text"]) <= 0.03
    starts = [segment["start"] for segment in answer["segments"]]
    assert starts == sorted(starts)
    assert answer["duration"] == pytest.approx(answer["segments"][-1]["end"], abs=5.0)


def test_replica_of_the_recognizer_has_no_pytorch(onnx_url: str) -> None:
    mapped = {
        path.parent.name: (path.parent / "maps").read_text()
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if b"ServeReplica:onnx:Recognizer" in _content(path)
    }
    assert len(mapped) == 1
    (maps,) = mapped.values()
    assert "onnxruntime" in maps
    assert "libtorch" not in maps


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""
