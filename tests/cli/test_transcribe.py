"""`paraserve transcribe --url`, against a service that notes what it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner, Result

from serve_app.cli.main import app
from serve_app.cli.transcribe import _Upload

KEY = "psk_of-a-test"


@dataclass
class Service:
    """A service on this machine; it demands a key if there is one."""

    url: str = ""
    key: str | None = None
    keys_seen: list[str | None] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)


def handler_of(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer({"data": [{"id": "paraformer-demo"}]})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            service.bodies.append(body.decode("utf-8", "replace"))
            self.answer({"text": "你好"})

        def answer(self, content: dict[str, object]) -> None:
            seen = self.headers.get("Authorization")
            service.keys_seen.append(seen)
            welcome = service.key is None or seen == f"Bearer {service.key}"
            refusal = {"error": {"message": "no valid API key"}}
            body = json.dumps(content if welcome else refusal).encode()
            self.send_response(200 if welcome else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return None

    return Handler


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(service))
    thread = Thread(target=server.serve_forever)
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_port}"
    yield service
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF")
    return path


def transcribe(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["transcribe", *arguments, "--format", "json"])


def test_key_in_a_file_is_sent_and_never_shown(
    service: Service, recording: Path, tmp_path: Path
) -> None:
    service.key = KEY
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n", encoding="utf-8")
    result = transcribe(str(recording), "--url", service.url, "--api-key-file", str(file))
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["text"] == "你好"
    assert service.keys_seen == [f"Bearer {KEY}"] * 2
    assert KEY not in result.output


def test_key_comes_from_the_variable_of_openais_clients(
    service: Service, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.key = KEY
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert transcribe(str(recording), "--url", service.url).exit_code == 0


def test_file_wins_over_the_variable(
    service: Service, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    file = tmp_path / "key"
    file.write_text(KEY, encoding="utf-8")
    transcribe(str(recording), "--url", service.url, "--api-key-file", str(file))
    assert set(service.keys_seen) == {f"Bearer {KEY}"}


def test_no_key_is_sent_without_one(service: Service, recording: Path) -> None:
    assert transcribe(str(recording), "--url", service.url).exit_code == 0
    assert service.keys_seen == [None, None]


def test_error_of_the_service_for_a_missing_key_is_shown(service: Service, recording: Path) -> None:
    service.key = KEY
    result = transcribe(str(recording), "--url", service.url)
    assert result.exit_code == 1
    assert "no valid API key" in " ".join(result.stderr.split())


@pytest.mark.parametrize("content", ["", "two words", "schlüssel", "two\nlines"])
def test_file_without_a_key_is_refused_without_its_content(
    service: Service, recording: Path, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "key"
    file.write_text(content, encoding="utf-8")
    result = transcribe(str(recording), "--url", service.url, "--api-key-file", str(file))
    assert "holds no key" in str(result.exception)
    assert not content or content not in str(result.exception)
    assert service.keys_seen == []


def test_key_without_a_service_is_a_mistake(recording: Path, tmp_path: Path) -> None:
    result = transcribe(str(recording), "--api-key-file", str(tmp_path / "key"))
    assert "--url" in str(result.exception)


def test_language_is_the_services_to_judge(service: Service, recording: Path) -> None:
    result = transcribe(str(recording), "--url", service.url, "--language", "ja")
    assert result.exit_code == 0, result.output
    assert 'name="language"\r\n\r\nja\r\n' in service.bodies[0]


def test_language_is_checked_where_the_models_run_here(recording: Path) -> None:
    result = transcribe(str(recording), "--language", "tlh")
    assert "'tlh' is not supported by this model" in str(result.exception)


def test_how_subtitles_are_divided_is_sent(service: Service, recording: Path) -> None:
    divided = ["--subtitle", "max_chars=16", "--subtitle", "max_lines=1"]
    result = transcribe(str(recording), "--url", service.url, *divided)
    assert result.exit_code == 0, result.output
    assert "subtitle_max_chars" in service.bodies[-1]
    assert "subtitle_max_lines" in service.bodies[-1]


@pytest.mark.parametrize(
    ("assignment", "told"), [("max_chars=1", "from 4 to 200"), ("color=red", "subtitle_color")]
)
def test_invalid_subtitle_options_are_reported(
    service: Service, recording: Path, assignment: str, told: str
) -> None:
    result = transcribe(str(recording), "--url", service.url, "--subtitle", assignment)
    assert result.exit_code != 0
    assert told in f"{result.exception} {' '.join(result.output.split())}"


def test_missing_onnx_pack_names_the_command_that_makes_it(recording: Path) -> None:
    result = transcribe(str(recording), "--profile", "cpu-int8-onnx", "--set", "offline=true")
    assert "paraserve models export paraformer-large /models/" in str(result.exception)


def test_upload_reports_how_much_was_sent(tmp_path: Path) -> None:
    file = tmp_path / "audio.wav"
    file.write_bytes(bytes(1000))
    seen: list[tuple[int, int]] = []
    with _Upload(file, lambda sent, total: seen.append((sent, total))) as upload:
        while upload.read(400):
            pass
    assert seen == [(400, 1000), (800, 1000), (1000, 1000), (1000, 1000)]
