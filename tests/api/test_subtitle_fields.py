"""The fields of a request that divide its subtitles."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from serve_app.api.openapi import REQUEST_SCHEMAS
from serve_app.api.parameters import parse_parameters
from serve_app.api.responses import render_body
from serve_app.api.subtitle_fields import SUBTITLE_FIELDS, parse_subtitle_options
from serve_app.core.errors import InvalidParameter
from serve_app.settings import Settings
from serve_app.settings.subtitles import SubtitleSettings
from serve_app.transcript.subtitles import DEFAULT_SUBTITLES, SubtitleOptions
from serve_app.transcript.transcript import Transcript
from tests.fakes.service import FakeService
from tests.transcript.test_subtitles import UNMARKED, sentence


def test_service_defaults_apply_to_unset_fields() -> None:
    defaults = SubtitleSettings(max_chars=12, max_lines=1)
    assert parse_subtitle_options({}, defaults) == SubtitleOptions(12, 1)
    fields = {"subtitle_max_chars": " 16 ", "subtitle_max_cps": "", "model": "whisper-1"}
    assert parse_subtitle_options(fields, defaults) == SubtitleOptions(16, 1)


def test_settings_have_the_defaults_of_the_core() -> None:
    assert SubtitleSettings().options() == DEFAULT_SUBTITLES
    assert Settings().subtitles == SubtitleSettings()
    with pytest.raises(ValidationError, match="min_duration_s"):
        SubtitleSettings(min_duration_s=8)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("subtitle_max_chars", "3", "a whole number from 4 to 200"),
        ("subtitle_max_chars", "many", "a whole number from 4 to 200"),
        ("subtitle_max_lines", "0", "a whole number from 1 to 4"),
        ("subtitle_max_lines", "1.5", "a whole number"),
        ("subtitle_min_duration_s", "-1", "a number from 0 to 10"),
        ("subtitle_min_duration_s", "8", "larger than subtitle_max_duration_s"),
        ("subtitle_max_duration_s", "1000", "a number from 1 to 60"),
        ("subtitle_max_duration_s", "nan", "a number from 1 to 60"),
        ("subtitle_max_cps", "inf", "a number from 1 to 100"),
    ],
)
def test_wrong_value_is_named_with_its_bounds(name: str, value: str, told: str) -> None:
    with pytest.raises(InvalidParameter, match=told) as caught:
        parse_subtitle_options({name: value}, SubtitleSettings())
    assert name in str(caught.value)


@pytest.mark.parametrize("response_format", ["srt", "vtt"])
def test_request_divides_its_subtitles(response_format: str) -> None:
    fields = {
        "model": ["whisper-1"],
        "response_format": [response_format],
        "subtitle_max_chars": ["12"],
        "subtitle_max_lines": ["1"],
    }
    parameters = parse_parameters(fields, FakeService().offer)
    body = render_body(Transcript(7000, (sentence(UNMARKED),)), parameters)
    lines = [line for line in body.splitlines() if line and line[0] > "\u2e7f"]
    assert "".join(lines) == UNMARKED
    assert len(lines) > 2
    assert max(map(len, lines)) <= 12


def test_fields_are_described() -> None:
    described = REQUEST_SCHEMAS["TranscriptionForm"]["properties"]
    assert described.keys() >= SUBTITLE_FIELDS
    assert described["subtitle_max_lines"]["default"] == 2
    assert described["subtitle_max_chars"]["maximum"] == 200
