"""What a segmenter still has before it."""

from __future__ import annotations

from serve_app.scheduling.autoscaling import Backlog


def test_undecoded_audio_counts_by_the_declared_length() -> None:
    backlog = Backlog()
    with backlog.open() as recording:
        recording.decoded(0.0, 3600.0)
        assert backlog.audio_s == 3600.0


def test_unknown_length_counts_only_what_is_in_flight() -> None:
    backlog = Backlog()
    with backlog.open() as recording:
        recording.decoded(20.0, None)
        recording.sent(15.0)
        assert backlog.audio_s == 15.0


def test_silence_so_far_is_expected_to_go_on() -> None:
    backlog = Backlog()
    with backlog.open() as recording:
        recording.decoded(100.0, 1100.0)
        recording.sent(50.0)
        recording.answered(50.0)
        assert backlog.audio_s == 500.0


def test_an_ended_recording_leaves_nothing() -> None:
    backlog = Backlog()
    with backlog.open() as first, backlog.open() as second:
        first.sent(5.0)
        second.sent(7.0)
        assert (backlog.audio_s, backlog.num_recordings) == (12.0, 2)
    assert (backlog.audio_s, backlog.num_recordings) == (0.0, 0)


def test_longer_than_declared_is_never_negative() -> None:
    backlog = Backlog()
    with backlog.open() as recording:
        recording.decoded(20.0, 10.0)
        recording.sent(3.0)
        recording.answered(4.0)
        assert backlog.audio_s == 0.0


def test_recording_that_is_worth_less_counts_less() -> None:
    backlog = Backlog()
    with backlog.open() as request, backlog.open(weight=0.25) as job:
        request.sent(5.0)
        job.decoded(0.0, 400.0)
        assert backlog.audio_s == 105.0
