"""`paraserve transcribe --channels`, over HTTP and with the models in this process."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from tests.cli.scripted_service import fields_of, serve_answer, transcribe
from tests.fakes.calls import demo_call, file_of

ANSWER = {
    "text": "您好。请讲。\n我想问一下。",
    "segments": [
        {"channel": 0, "text": "您好。"},
        {"channel": 0, "text": "请讲。"},
        {"channel": 1, "text": "我想问一下。"},
    ],
}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Bodies that a service was sent."""
    return serve_answer(monkeypatch, ANSWER)


@pytest.fixture
def call(tmp_path: Path) -> Path:
    file = tmp_path / "call.flac"
    file.write_bytes(file_of(demo_call(4)).tobytes())
    return file


def test_a_service_is_asked_for_separate_channels_and_text_names_them(
    sent: list[str], call: Path
) -> None:
    result = transcribe("--url", "http://service", "--channels", "separate", str(call))
    assert result.exit_code == 0, result.output
    fields = fields_of(sent[0])
    assert (fields["channels"], fields["response_format"]) == ("separate", "verbose_json")
    assert result.stdout == "Channel 1: 您好。请讲。\nChannel 2: 我想问一下。\n"


def test_mix_is_not_a_dialog(sent: list[str], call: Path) -> None:
    result = transcribe("--url", "http://service", "--channels", "mix", str(call))
    assert result.exit_code == 0, result.output
    assert fields_of(sent[0])["response_format"] == "text"


def test_another_value_is_refused_at_once(sent: list[str], call: Path) -> None:
    result = transcribe("--url", "http://service", "--channels", "both", str(call))
    assert result.exit_code != 0
    assert not sent


def test_a_call_is_transcribed_by_turns_in_this_process(call: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    for name in ("text", "srt", "verbose_json"):
        result = transcribe("--channels=separate", "-f", name, "-o", str(output), str(call))
        assert result.exit_code == 0, result.output
    text = (output / "call.flac.txt").read_text("utf-8")
    turns = [line.split(":")[0] for line in text.splitlines()]
    assert turns[:3] == ["Channel 1", "Channel 2", "Channel 1"]
    assert all(before != after for before, after in pairwise(turns))
    assert "Channel 2: " in (output / "call.flac.srt").read_text("utf-8")
    body = json.loads((output / "call.flac.json").read_text("utf-8"))
    assert {segment["channel"] for segment in body["segments"]} == {0, 1}
