"""Turns from windows, and the pauses in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from serve_app.core.speakers import SpeakerTurn, SpeakerWindows
from serve_app.speakers.turns import turns_of
from tests.fakes.voices import made_up_voices, made_up_windows

VOICES = made_up_voices(2)


def spans(turns: tuple[SpeakerTurn, ...]) -> list[tuple[int, int, int]]:
    return [(turn.start_ms, turn.end_ms, turn.speaker) for turn in turns]


def windows_with(*pauses_ms: tuple[int, int]) -> tuple[SpeakerWindows, np.ndarray]:
    """Returns windows of one speaker until 6 s and another from there on, without a gap."""
    spoken = (SpeakerTurn(0, 6000, 0), SpeakerTurn(6000, 12_000, 1))
    windows = made_up_windows(spoken, VOICES)
    labels = (windows.start_ms + windows.end_ms > 12_000).astype(np.int64)
    ranges = np.array(pauses_ms, np.int64).reshape(-1, 2)
    return replace(windows, pauses_ms=ranges), labels


def test_speaker_changes_near_the_middle_without_pauses() -> None:
    (start, change, _), (again, end, _) = spans(turns_of(*windows_with()))
    assert (start, end) == (0, 12_000)
    assert change == again
    assert abs(change - 6000) <= 500


def test_nobody_speaks_in_a_pause() -> None:
    turns = turns_of(*windows_with((2000, 2400), (9000, 9300)))
    assert spans(turns)[0] == (0, 2000, 0)
    assert spans(turns)[1][0] == 2400
    assert spans(turns)[-2][1:] == (9000, 1)
    assert spans(turns)[-1] == (9300, 12_000, 1)


def test_speaker_changes_in_a_pause_nearby() -> None:
    for start_ms in (5600, 5700, 5900, 6200):
        turns = turns_of(*windows_with((start_ms, start_ms + 500)))
        assert [turn.speaker for turn in turns] == [0, 1], start_ms
        assert turns[0].end_ms == start_ms
        assert turns[1].start_ms == start_ms + 500


def test_pause_at_the_ends_is_cut_off() -> None:
    turns = turns_of(*windows_with((0, 300), (11_700, 12_000)))
    assert (turns[0].start_ms, turns[-1].end_ms) == (300, 11_700)


def test_pause_within_a_speaker_changes_nothing_else() -> None:
    plain = turns_of(*windows_with())
    with_pause = turns_of(*windows_with((2000, 2400)))
    assert with_pause[1].end_ms == plain[0].end_ms
    assert [turn.speaker for turn in with_pause] == [0, 0, 1]


def test_speaker_of_a_pause_alone_keeps_a_turn() -> None:
    windows, labels = windows_with()
    paused = replace(windows, pauses_ms=np.array([[0, 12_000]], np.int64))
    assert {turn.speaker for turn in turns_of(paused, labels)} == {0, 1}
