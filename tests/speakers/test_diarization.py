import numpy as np
import pytest

from serve_app.core.speakers import (
    Diarization,
    Embeddings,
    KnownSpeaker,
    SpeakerOptions,
    SpeakerTurn,
    SpeakerWindows,
)
from serve_app.speakers.diarization import diarize
from tests.fakes.voices import made_up_voices, made_up_windows, talk

NO_OPTIONS = SpeakerOptions()
NO_PCM = np.zeros(0, np.int16)


def known(*names: str) -> SpeakerOptions:
    return SpeakerOptions(known=tuple(KnownSpeaker(name, NO_PCM) for name in names))


def references(voices: np.ndarray, *speakers: int, seed: int = 5) -> Embeddings:
    """Returns embeddings of recordings of a few seconds, near the speakers' voices."""
    rng = np.random.default_rng(seed)
    near = voices[list(speakers)] + rng.normal(scale=0.03, size=(len(speakers), voices.shape[1]))
    unit: Embeddings = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    return unit


def error_ms(found: Diarization, turns: tuple[SpeakerTurn, ...]) -> int:
    """Returns how long the wrong speaker is named; both number by first appearance."""
    return sum(
        max(0, min(one.end_ms, other.end_ms) - max(one.start_ms, other.start_ms))
        for one in found.turns
        for other in turns
        if one.speaker != other.speaker
    )


def test_nothing_said_has_no_turns() -> None:
    nothing = SpeakerWindows(
        np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 192), np.float32)
    )
    assert diarize(nothing, NO_OPTIONS) == Diarization()
    assert diarize(nothing, SpeakerOptions(num_speakers=2)) == Diarization()


def test_one_window_is_one_turn() -> None:
    windows = made_up_windows([SpeakerTurn(500, 1_100, 0)], made_up_voices(1))
    assert diarize(windows, NO_OPTIONS) == Diarization((SpeakerTurn(500, 1_100, 0),), ("A",))


def test_turns_are_those_of_the_conversation() -> None:
    turns = talk(3, 180)
    found = diarize(made_up_windows(turns, made_up_voices(3)), NO_OPTIONS)
    assert found.labels == ("A", "B", "C")
    assert error_ms(found, turns) < 0.03 * turns[-1].end_ms


def test_boundary_inside_of_windows_is_found_within_half_a_second() -> None:
    turns = (SpeakerTurn(0, 10_300, 0), SpeakerTurn(10_300, 22_000, 1))
    found = diarize(made_up_windows(turns, made_up_voices(2)), NO_OPTIONS)
    assert [turn.speaker for turn in found.turns] == [0, 1]
    assert found.turns[1].start_ms == pytest.approx(10_300, abs=500)


def test_turns_are_in_order_without_overlaps() -> None:
    found = diarize(made_up_windows(talk(4, 300), made_up_voices(4)), NO_OPTIONS)
    starts_ms = [turn.start_ms for turn in found.turns]
    assert starts_ms == sorted(starts_ms)
    pairs = zip(found.turns, found.turns[1:], strict=False)
    assert all(one.end_ms <= other.start_ms for one, other in pairs)
    firsts = list(dict.fromkeys(turn.speaker for turn in found.turns))
    assert firsts == list(range(len(found.labels)))


def test_turns_cover_speech_and_nothing_else() -> None:
    turns = (SpeakerTurn(1_000, 7_000, 0), SpeakerTurn(20_000, 26_130, 0))
    found = diarize(made_up_windows(turns, made_up_voices(1)), NO_OPTIONS)
    assert found.turns == turns


def test_asked_speakers_all_have_turns() -> None:
    windows = made_up_windows(talk(2, 60), made_up_voices(2))
    found = diarize(windows, SpeakerOptions(num_speakers=5))
    assert found.labels == tuple("ABCDE")
    assert {turn.speaker for turn in found.turns} == set(range(5))


def test_more_than_26_speakers_have_two_letters() -> None:
    windows = made_up_windows(talk(3, 90), made_up_voices(3))
    labels = diarize(windows, SpeakerOptions(num_speakers=28)).labels
    assert labels[:2] == ("A", "B")
    assert labels[25:] == ("Z", "AA", "AB")


def test_known_speakers_have_their_names_and_others_letters() -> None:
    voices = made_up_voices(4)
    windows = made_up_windows(talk(3, 120), voices)
    # Nobody in the recording is the last of them.
    found = diarize(windows, known("Bo", "Ada", "Eve"), references(voices, 2, 1, 3))
    assert found.labels == ("A", "Ada", "Bo")


def test_name_goes_to_one_speaker_at_most() -> None:
    voices = made_up_voices(2)
    windows = made_up_windows(talk(2, 60), voices)
    found = diarize(windows, known("Ada", "Ada's twin"), references(voices, 0, 0))
    assert sorted(found.labels) in (["A", "Ada"], ["A", "Ada's twin"])


def test_letter_that_is_a_name_is_not_given_to_another() -> None:
    voices = made_up_voices(3)
    windows = made_up_windows(talk(3, 90), voices)
    found = diarize(windows, known("A"), references(voices, 2))
    assert found.labels == ("B", "C", "A")
