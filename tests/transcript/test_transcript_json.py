"""A transcript that was stored renders as before, in every format."""

from __future__ import annotations

import json
import random
from typing import get_args

import pytest

from serve_app.api.parameters import ResponseFormat, TranscriptionParameters
from serve_app.api.responses import render
from serve_app.core.records import Token, UtteranceSummary
from serve_app.core.speakers import Diarization, SpeakerTurn
from serve_app.transcript.subtitles import SubtitleOptions
from serve_app.transcript.transcript import FailedRange, MarkedToken, Sentence, Transcript
from serve_app.transcript.transcript_json import transcript_from_json, transcript_to_json

WORDS = ("你", "好", "hello", "3.5", "GPU", "été", "🙂", '"', "\\", "\u2028", "𠮷", "a\nb")
MARKS = ("", "，", "。", "？", ", ", "、")


def transcript_of(seed: int) -> Transcript:
    """Makes a transcript of random shape: channels, speakers, models, damage and silence."""
    choose = random.Random(seed)
    num_channels = choose.choice((1, 1, 2, 3))
    channels: tuple[int | None, ...] = (None,) if num_channels == 1 else tuple(range(num_channels))
    clock_ms = 0
    sentences = []
    for _ in range(choose.randrange(8)):
        tokens = []
        for _ in range(choose.randrange(1, 12)):
            end_ms = clock_ms + choose.randrange(1, 900)
            model = choose.choice((None, "paraformer-demo", "whisper"))
            token = Token(choose.choice(WORDS), clock_ms, end_ms, choose.random(), model)
            tokens.append(MarkedToken(token, choose.choice(MARKS)))
            clock_ms = end_ms + choose.randrange(300)
        sentences.append(
            Sentence(
                tuple(tokens), choose.choice((None, "A", "顾客 \u2029")), choose.choice(channels)
            )
        )
    turns = tuple(
        SpeakerTurn(at, at + 700, choose.randrange(2), choose.choice(channels))
        for at in range(0, clock_ms, 700)
    )
    return Transcript(
        clock_ms + choose.randrange(1000),
        tuple(sentences),
        tuple(
            FailedRange(
                at,
                at + 5,
                "engine_error: 错",
                choose.choice(("recognition_failed", "damaged")),
                choose.choice(channels),
            )
            for at in range(choose.randrange(3))
        ),
        tuple(
            UtteranceSummary(
                at,
                at + 9,
                choose.choice(("done", "empty", "failed")),
                choose.choice((None, "zh", "en")),
                choose.choice(channels),
            )
            for at in range(choose.randrange(4))
        ),
        choose.choice(((), ("The file is cut off.",))),
        choose.choice((None, Diarization(turns, ("A", "顾客")))),
        num_channels,
    )


def parameters_of(response_format: ResponseFormat) -> TranscriptionParameters:
    return TranscriptionParameters(
        "paraformer-demo",
        None,
        frozenset({"asr"}),
        response_format,
        frozenset({"word", "segment"}),
        include_utterances=True,
        include_logprobs=True,
        subtitles=SubtitleOptions(with_speakers=True, with_channels=True),
    )


@pytest.mark.parametrize("response_format", get_args(ResponseFormat))
def test_every_format_is_the_same_before_and_after(response_format: ResponseFormat) -> None:
    for seed in range(200):
        transcript = transcript_of(seed)
        stored = transcript_from_json(transcript_to_json(transcript))
        before = render(transcript, parameters_of(response_format))
        after = render(stored, parameters_of(response_format))
        assert stored == transcript, seed
        assert (after.body, after.headers.items()) == (before.body, before.headers.items()), seed


def test_content_is_ascii_on_one_line() -> None:
    content = transcript_to_json(transcript_of(3))
    assert content.isascii()
    assert len(content.splitlines()) == 1


@pytest.mark.parametrize("change", [{"version": 2}, {"version": None}, {"sentences": [{}]}])
def test_content_of_another_version_is_refused(change: dict[str, object]) -> None:
    content = json.loads(transcript_to_json(transcript_of(1)))
    with pytest.raises(ValueError, match="transcript"):
        transcript_from_json(json.dumps(content | change).encode())


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"null", b"\xff", b'{"version": 1}'])
def test_other_content_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        transcript_from_json(content)
