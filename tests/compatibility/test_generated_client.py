"""A client that a tool has written from the OpenAPI document alone."""

from __future__ import annotations

import importlib
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.compatibility.conftest import TEXT
from tests.fakes.service import FAILED_RANGE, FakeService, sentence

pytestmark = pytest.mark.slow

_GENERATE_S = 120
_NAME = "generated_paraserve_client"


@pytest.fixture
def generated(
    api_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    pytest.importorskip("openapi_python_client", reason="needs the extra `test`")
    command = [
        *(sys.executable, "-m", "openapi_python_client", "generate"),
        *("--url", f"{api_url}/openapi.json"),
        *("--output-path", str(tmp_path / _NAME), "--meta", "none", "--fail-on-warning"),
    ]
    config = tmp_path / "config.yml"
    # It would have the code put into shape, which nobody reads.
    config.write_text("post_hooks: []\n", encoding="utf-8")
    ran = subprocess.run(
        [*command, "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=_GENERATE_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module(_NAME)
    for name in [name for name in sys.modules if name.partition(".")[0] == _NAME]:
        del sys.modules[name]


class Generated:
    """The parts of the generated package that the test uses.

    Args:
        package: the generated one.
        api_url: of the API.
    """

    def __init__(self, package: ModuleType, api_url: str) -> None:
        self._name = package.__name__
        self.models = self._module("models")
        self.client = self._module("client").Client(base_url=api_url)

    def _module(self, name: str) -> Any:
        return importlib.import_module(f"{self._name}.{name}")

    def transcribe(self, content: bytes, **fields: Any) -> Any:
        file = self._module("types").File(payload=io.BytesIO(content), file_name="a.wav")
        form = self.models.TranscriptionForm(model="whisper-1", file=file, **fields)
        route = self._module("api.audio.create_transcription")
        return route.sync_detailed(client=self.client, body=form)

    def list_models(self) -> Any:
        return self._module("api.models.list_models").sync(client=self.client)

    def retrieve_model(self, name: str) -> Any:
        return self._module("api.models.retrieve_model").sync(name, client=self.client)

    def readiness(self) -> Any:
        return self._module("api.health.readiness").sync(client=self.client)


@pytest.fixture
def client(generated: ModuleType, api_url: str) -> Generated:
    return Generated(generated, api_url)


def test_generated_client_transcribes(client: Generated, service: FakeService) -> None:
    answer = client.transcribe(b"RIFF").parsed
    assert isinstance(answer, client.models.Transcription)
    assert (answer.text, answer.usage.seconds) == (TEXT, 2)
    assert service.uploads == [b"RIFF"]

    formats = client.models.TranscriptionFormResponseFormat
    items = client.models.TranscriptionFormTimestampGranularitiesItem
    verbose = client.transcribe(
        b"RIFF",
        response_format=formats.VERBOSE_JSON,
        timestamp_granularities=[items.WORD, items.SEGMENT],
    ).parsed
    assert isinstance(verbose, client.models.VerboseTranscription)
    assert [word.word for word in verbose.words] == list("你好再见")
    assert [segment.start for segment in verbose.segments] == [0.0, 1.0]

    service.events = [sentence("你好", 0), FAILED_RANGE]
    partial = client.transcribe(b"RIFF").parsed
    assert partial.partial is True
    assert partial.failed_ranges[0].start == 0.5


def test_generated_client_knows_errors_and_the_other_routes(client: Generated) -> None:
    refused = client.transcribe(b"not audio")
    assert refused.status_code == 400
    assert isinstance(refused.parsed, client.models.ErrorAnswer)
    assert refused.parsed.error.code == "unknown_audio_format"
    assert [model.id for model in client.list_models().data] == ["paraformer-demo", "whisper-1"]
    assert client.retrieve_model("whisper-1").root == "paraformer-demo"
    assert client.retrieve_model("other").error.code == "model_not_found"
    assert client.readiness().stages["asr"].device == "cpu"
