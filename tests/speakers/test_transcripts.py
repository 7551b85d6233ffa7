"""Windows and labels of recordings, and of recordings whose channels are separate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from serve_app.core.records import Chunk, RequestContext, Token, Utterance
from serve_app.core.speakers import Diarization, SpeakerTurn
from serve_app.speakers.transcripts import RecordingVoices, labelled, labelled_sentences
from serve_app.transcript.transcript import MarkedToken, Sentence, Transcript
from tests.fakes.voices import diarization_of, windows_of

QUIET, LOUD = 500, 5000


def utterance(start_ms: int, voice: int, channel: int | None = None) -> Utterance:
    chunk = Chunk(RequestContext("1"), 0, start_ms, np.full(32_000, voice, np.int16))
    voices = windows_of(chunk)
    return Utterance(0, start_ms, start_ms + 2000, "done", voices=voices, channel=channel)


def sentence(start_ms: int, text: str, channel: int | None = None) -> Sentence:
    tokens = tuple(
        MarkedToken(Token(word, start_ms + i * 500, start_ms + (i + 1) * 500, 0.9))
        for i, word in enumerate(text)
    )
    return Sentence(tokens, channel=channel)


def collected(*utterances: Utterance) -> RecordingVoices:
    voices = RecordingVoices()
    for one in utterances:
        voices.add(one)
    return voices


def test_without_channels_the_windows_are_those_of_the_recording() -> None:
    voices = collected(utterance(0, QUIET), utterance(3000, LOUD))
    assert voices.windows().start_ms.tolist() == [0, 500, 3000, 3500]
    found = diarization_of(voices.windows())
    assert voices.in_recording_time(found) is found


def test_no_windows_are_no_voices() -> None:
    voices = collected(Utterance(0, 0, 1000, "done"))
    assert not voices


def test_talk_over_on_two_channels_is_told_apart() -> None:
    voices = collected(utterance(0, QUIET, 0), utterance(500, LOUD, 1), utterance(4000, QUIET, 0))
    windows = voices.windows()
    assert (np.diff(windows.start_ms) > 0).all()
    found = voices.in_recording_time(diarization_of(windows))
    assert found.turns == (
        SpeakerTurn(0, 6000, 0, 0),
        SpeakerTurn(500, 2500, 1, 1),
    )
    sentences = [sentence(0, "你好吗", 0), sentence(600, "我很好", 1), sentence(4000, "再见了", 0)]
    labels = [(one.speaker, one.channel) for one in labelled_sentences(sentences, found)]
    assert labels == [("A", 0), ("B", 1), ("A", 0)]


def test_pauses_follow_the_windows_of_their_channel() -> None:
    parts = [utterance(0, QUIET, 0), utterance(0, LOUD, 1)]
    voices = collected(
        *(
            replace(part, voices=replace(part.voices, pauses_ms=np.array([[600, 900]])))
            for part in parts
            if part.voices is not None
        )
    )
    windows = voices.windows()
    second_ms = int(windows.start_ms[2])
    assert windows.pauses_ms.tolist() == [[600, 900], [second_ms + 600, second_ms + 900]]


def test_voice_on_two_channels_is_one_speaker() -> None:
    voices = collected(utterance(0, QUIET, 0), utterance(0, QUIET, 1))
    found = voices.in_recording_time(diarization_of(voices.windows()))
    assert {turn.speaker for turn in found.turns} == {0}


def test_transcript_is_labelled_only_if_it_was_told_who_spoke() -> None:
    plain = Transcript(2000, (sentence(0, "你好吗"),))
    assert labelled(plain) is plain
    turns = (SpeakerTurn(0, 2000, 0),)
    told = Transcript(2000, plain.sentences, diarization=Diarization(turns, ("Anna",)))
    assert [one.speaker for one in labelled(told).sentences] == ["Anna"]
    nobody = Transcript(2000, plain.sentences, diarization=Diarization())
    assert [one.speaker for one in labelled(nobody).sentences] == [None]
