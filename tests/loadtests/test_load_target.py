"""What may be loaded, and what a run without a URL starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.load.__main__ import main
from loadtests.load.target import RemoteRefused, check_local, own_settings
from loadtests.ports import free_port


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000", "http://127.9.9.9"],
)
def test_loopback_is_allowed(url: str) -> None:
    check_local(url, allow_remote=False)


@pytest.mark.parametrize(
    "url",
    ["http://10.0.0.1:8000", "http://example.com", "http://localhost.test.com", "nonsense"],
)
def test_other_machine_is_refused_unless_allowed(url: str) -> None:
    with pytest.raises(RemoteRefused, match="--allow-remote"):
        check_local(url, allow_remote=False)
    check_local(url, allow_remote=True)


def test_own_service_listens_on_loopback_and_takes_long_recordings() -> None:
    settings = own_settings(("admission.max_running=2",))
    assert settings.http.host == "127.0.0.1"
    assert settings.audio.max_upload_bytes >= 200 * 2**20
    assert settings.admission.max_running == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--url", "http://example.com"],
        ["--url", "http://127.0.0.1:1", "--rate", "0"],
        ["--url", "http://127.0.0.1:1", "--rate", "1000", "--max-requests", "10"],
        ["--url", "http://127.0.0.1:1", "--trace", "/nonexistent.csv"],
    ],
)
def test_invalid_command_line_is_reported(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_unreachable_service_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--url", f"http://127.0.0.1:{free_port()}", "--profile", "clips", "--rate", "5"]
    assert main([*command, "--duration", "10"]) == 2
    assert capsys.readouterr().err.startswith("error: ConnectError")


def test_trace_beyond_the_duration_is_nothing_to_send(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,audio_s\n100,3\n")
    assert main(["--url", "http://127.0.0.1:1", "--trace", str(trace), "--duration", "10"]) == 2
    assert "no request is due" in capsys.readouterr().err
